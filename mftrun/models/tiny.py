"""A small Llama that starts from nothing, with a tokenizer trained on the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mftrun.errors import ConfigError
from mftrun.models.base import HeadKind, Texts

if TYPE_CHECKING:
    import torch
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class TinyLlama:
    """A randomly initialized Llama; the field names are those of transformers' `LlamaConfig`.

    Args:
        vocab_size: Most entries of the tokenizer.
        hidden_size: Width.
        num_hidden_layers: Depth.
        num_attention_heads: Query heads; they divide the width.
        num_key_value_heads: Key and value heads; None takes as many as query heads.
        intermediate_size: Width of the feed-forward layers.
        max_position_embeddings: Longest row.
        tie_word_embeddings: Whether the output head shares the embedding's weights.
        attention: Implementation of attention.
        head: How target positions are projected.

    Raises:
        ConfigError: The sizes do not fit each other.
    """

    vocab_size: int = 4096
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int | None = None
    intermediate_size: int = 352
    max_position_embeddings: int = 4096
    tie_word_embeddings: bool = True
    attention: Literal["sdpa", "eager"] = "sdpa"
    head: HeadKind = "auto"

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "intermediate_size",
            "max_position_embeddings",
        ):
            _positive(name, getattr(self, name))
        _divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        if self.hidden_size // self.num_attention_heads % 2:
            raise ConfigError(
                "model.hidden_size", "rotary positions need an even number of units in each head"
            )
        if self.num_key_value_heads is not None:
            heads = ("num_attention_heads", self.num_attention_heads)
            _divides("num_key_value_heads", self.num_key_value_heads, *heads)

    @property
    def has_files(self) -> bool:
        """False; see `ModelSource.has_files`."""
        return False

    @property
    def tokenizer_recipe(self) -> Mapping[str, Any]:
        """Its size; see `ModelSource.tokenizer_recipe`."""
        return {"kind": "byte-level BPE", "vocab_size": self.vocab_size}

    def check(self) -> None:
        """See `ModelSource.check`."""
        from mftrun.models.heads import check_kind

        check_kind(self.head)

    def tokenizer(self, texts: Texts, control_tokens: Sequence[str] = ()) -> PreTrainedTokenizerFast:
        """A byte-level BPE tokenizer trained on the texts; see `ModelSource.tokenizer`."""
        from mftrun.models.tokenizers import train_bpe

        return train_bpe(texts(), self.vocab_size, control_tokens)

    def load(
        self,
        tokenizer: PreTrainedTokenizerFast,
        dtype: torch.dtype,
        quantization: BitsAndBytesConfig | None = None,
        mesh: DeviceMesh | None = None,
    ) -> PreTrainedModel:
        """A new model, drawn from torch's global random numbers; see `ModelSource.load`."""
        assert quantization is None, "only weights in files are quantised, while they are read"
        assert mesh is None, "only weights in files are divided, while they are read"
        return self._made(
            dtype,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    def skeleton(self, entries: int, dtype: torch.dtype) -> PreTrainedModel:
        """See `ModelSource.skeleton`."""
        import torch

        with torch.device("meta"):
            return self._made(dtype, vocab_size=entries)

    def _made(self, dtype: torch.dtype, **of_tokenizer: int | None) -> PreTrainedModel:
        from transformers import AutoModelForCausalLM, LlamaConfig

        config = LlamaConfig(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            intermediate_size=self.intermediate_size,
            max_position_embeddings=self.max_position_embeddings,
            tie_word_embeddings=self.tie_word_embeddings,
            **of_tokenizer,
        )
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=self.attention)
        result: PreTrainedModel = model.train()
        return result


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"model.{name}", f"must be 1 or more, not {value}")


def _divides(name: str, value: int, whole_name: str, whole: int) -> None:
    _positive(name, value)
    if whole % value:
        raise ConfigError(f"model.{name}", f"must divide model.{whole_name}={whole}, and {value} does not")
