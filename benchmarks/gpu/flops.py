"""How much arithmetic training a decoder takes: model FLOPs, which do not count what is computed twice.

A multiplication with a matrix of N entries costs 2N FLOPs a token, forward. Backward it costs 2N for the
gradient of its input and 2N for that of the matrix, which a frozen matrix does without: 6N in all, 4N when
frozen. Attention has no weights: each of its two products, of every query with all keys up to it, is computed
once forward, and backward once for either factor. The method is that of PaLM (arXiv 2204.02311, appendix B),
which counts attention as if it were not causal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Decoder:
    """The sizes of a decoder with gated MLPs (Llama, Qwen 2).

    Attributes:
        vocab_size: Entries of the vocabulary.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the MLP.
        num_hidden_layers: Layers.
        num_attention_heads: Query heads.
        num_key_value_heads: Key and value heads.
        tie_word_embeddings: Whether the output head is the embedding.
        qkv_bias: Whether queries, keys and values have biases.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    tie_word_embeddings: bool = False
    qkv_bias: bool = False

    @property
    def linear_shapes(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of the linear maps of one layer."""
        hidden, inner = self.hidden_size, self.intermediate_size
        keys = hidden // self.num_attention_heads * self.num_key_value_heads
        attention = ((hidden, hidden), (hidden, keys), (hidden, keys), (hidden, hidden))
        return (*attention, (hidden, inner), (hidden, inner), (inner, hidden))

    @property
    def matmul_parameters(self) -> int:
        """Entries of the matrices that a token is multiplied with: the head, but not the embedding."""
        layer = sum(inputs * outputs for inputs, outputs in self.linear_shapes)
        return self.num_hidden_layers * layer + self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """All parameters."""
        norms = (2 * self.num_hidden_layers + 1) * self.hidden_size
        biases = self.num_hidden_layers * sum(outputs for _, outputs in self.linear_shapes[:3])
        embedding = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        return self.matmul_parameters + embedding + norms + self.qkv_bias * biases

    def lora_parameters(self, rank: int) -> int:
        """Parameters of adapters of that rank on every linear map of the layers."""
        layer = sum(inputs + outputs for inputs, outputs in self.linear_shapes)
        return self.num_hidden_layers * rank * layer


def weight_flops(frozen: int, trained: int) -> int:
    """FLOPs a token of training with so many frozen and trained matrix entries, attention aside."""
    return 4 * frozen + 6 * trained


def attention_flops(layers: int, width: int, context: float, causal: bool = True) -> float:
    """FLOPs a token of training in the products of attention, which are backward twice what they are forward.

    Args:
        layers: Layers of the model.
        width: Heads times their size.
        context: Length of the sequence; of segments of several lengths, see `mean_context`.
        causal: A token sees half of the sequence on average, not all of it.
    """
    return 12 * layers * width * context / (2 if causal else 1)


def mean_context(lengths: Iterable[int]) -> float:
    """Length of the segment that a token finds itself in, averaged over the tokens."""
    lengths = list(lengths)
    return sum(length**2 for length in lengths) / sum(lengths)


def training_flops(decoder: Decoder, rank: int | None, context: float) -> float:
    """Model FLOPs a token.

    Args:
        decoder: The model.
        rank: Of the adapters on the frozen model; None where all of it is trained.
        context: See `attention_flops`.
    """
    matrices = decoder.matmul_parameters
    weights = (
        weight_flops(0, matrices) if rank is None else weight_flops(matrices, decoder.lora_parameters(rank))
    )
    return weights + attention_flops(decoder.num_hidden_layers, decoder.hidden_size, context)


def utilisation(tokens_per_second: float, flops_per_token: float, peak: float) -> float:
    """Share of the peak, in FLOP/s, that the model's arithmetic makes up."""
    return tokens_per_second * flops_per_token / peak
