"""What a forward pass leaves for the backward pass, layer by layer.

Counted as autograd saves it for the decoders of Llama, Mistral, Qwen2 and Qwen3 in transformers: RMS norms
that work in 32 bit, rotary positions, grouped queries, a gated feed-forward part. (Compare arXiv 2205.05198.)
"""

from __future__ import annotations

from mftrun.planning.model import Architecture, ModelSize
from mftrun.planning.setup import Setup

_FP32 = 4


def saved(model: ModelSize, setup: Setup) -> int:
    """Bytes that all layers keep from the forward to the backward pass, without copies of weights."""
    kept = checkpoint(model, setup) if setup.checkpointing else layer(model, setup)
    final_norm = _norm(model, setup)
    return model.architecture.layers * kept + final_norm


def checkpoint(model: ModelSize, setup: Setup) -> int:
    """Bytes that a layer keeps with gradient checkpointing: its input."""
    return setup.tokens * model.architecture.hidden * setup.numerics.stream


def layer(model: ModelSize, setup: Setup) -> int:
    """Bytes that one layer keeps without gradient checkpointing."""
    parts = (_norms, _linear_inputs, _adapters, _attention, _feed_forward)
    return sum(part(model, setup) for part in parts)


def weight_copies(model: ModelSize, setup: Setup) -> int:
    """Bytes of one layer's weights in the dtype of matrix products, which autocast makes of trained ones."""
    numerics = setup.numerics
    base = model.layer.trained_linear if numerics.casts_weights else 0
    adapter = model.layer.trained_adapter if numerics.casts_adapters else 0
    return (base + adapter) * numerics.compute


def backward(model: ModelSize, setup: Setup) -> int:
    """Bytes that the backward pass of a layer needs for itself.

    At its widest, in the feed-forward part: the gradients of the two projections, of their product and of the
    activation, those of the stream in 32 bit, and that of a matrix before it is added to the others; and
    those of experts with adapters, from which the adapters' are made.
    """
    sizes, numerics = model.architecture, setup.numerics
    inner = setup.tokens * sizes.inner
    widest = (4 if sizes.gated else 3) * inner * numerics.compute
    if model.low_rank is not None and model.low_rank.dropout and numerics.casts_adapters:
        widest += inner * _FP32  # dropout works in the adapter's dtype
    stream = 2 * setup.tokens * sizes.hidden * _FP32
    matrix = model.largest * (numerics.compute + _FP32 if setup.half else _FP32)
    expanded = 0 if setup.quantized is None else sizes.hidden * sizes.inner * numerics.compute
    return widest + stream + matrix + expanded + _merged(model, setup)


def _norms(model: ModelSize, setup: Setup) -> int:
    """Those before attention and before the feed-forward part, and those of queries and keys."""
    sizes = model.architecture
    both = 2 * _norm(model, setup)
    if not sizes.head_norms:
        return both
    return both + _normalised(setup.tokens * (sizes.query + sizes.key), model, setup)


def _norm(model: ModelSize, setup: Setup) -> int:
    """The input in 32 bit, its scale, and, for the gradient of the norm's weight, the normalised input."""
    return _normalised(setup.tokens * model.architecture.hidden, model, setup) + setup.tokens * _FP32


def _normalised(elements: int, model: ModelSize, setup: Setup) -> int:
    return elements * (_FP32 + (setup.numerics.stream if _trains(model) else 0))


def _linear_inputs(model: ModelSize, setup: Setup) -> int:
    """Inputs of trained linear layers. Autocast copies them for each layer: three times for queries, keys and
    values, twice for the gate and what it opens. Attention's output is counted with attention.
    """
    if not _trains(model):
        return 0
    sizes, numerics = model.architecture, setup.numerics
    projections = 3 + (2 if sizes.gated else 1)
    copies = projections if numerics.casts_inputs else 2
    return setup.tokens * (copies * sizes.hidden + sizes.inner) * numerics.compute


def _adapters(model: ModelSize, setup: Setup) -> int:
    """Of each adapter its input (behind dropout, with the mask), and what its first factor makes of it."""
    adapters, numerics = model.low_rank, setup.numerics
    if adapters is None:
        return 0
    inputs = adapters.inputs * (numerics.compute + (setup.mask if adapters.dropout else 0))
    if not adapters.dropout and not numerics.casts_adapters:
        # Without dropout or another dtype it is the very tensor that others saved or share.
        sizes = model.architecture
        inputs = (2 * sizes.hidden + sizes.inner) * numerics.compute
    return setup.tokens * (inputs + adapters.ranks * numerics.compute) + _merged(model, setup)


def _merged(model: ModelSize, setup: Setup) -> int:
    """Experts with their adapters added, in their own dtype: peft makes them in each forward pass."""
    numerics = setup.numerics
    size = numerics.weight if numerics.autocast else numerics.compute
    return 0 if model.low_rank is None else model.low_rank.merged * size


def _attention(model: ModelSize, setup: Setup) -> int:
    """Queries, keys, values, output, and a scale for each query; a mask as one number per pair of positions.

    With a mask, keys and values are repeated for every query head that shares them.
    """
    sizes, numerics, tokens = model.architecture, setup.numerics, setup.tokens
    masked = setup.attention == "sdpa" and _masked(sizes, setup)
    repeats = masked or setup.attention == "eager"
    key = sizes.query if repeats else sizes.key
    kept = tokens * (2 * sizes.query + 2 * key) * numerics.compute
    if setup.attention == "eager":
        return kept + _scores(sizes, setup)
    pairs = setup.rows * setup.length**2 if masked else 0
    return kept + tokens * sizes.heads * _FP32 + pairs * numerics.compute


def _scores(sizes: Architecture, setup: Setup) -> int:
    """Eager attention keeps the softmax, in 32 bit, and a copy to multiply with the values."""
    pairs = setup.rows * setup.length**2 * sizes.heads
    narrow = setup.numerics.compute if setup.numerics.compute < _FP32 else 0
    return pairs * (_FP32 + narrow)


def _masked(sizes: Architecture, setup: Setup) -> bool:
    return setup.masked or (sizes.window is not None and sizes.window < setup.length)


def _feed_forward(model: ModelSize, setup: Setup) -> int:
    """Gate, what it opens and the activation; without a gate the activation's input.

    The product is an input of a linear layer, and counted there.
    """
    count = 3 if model.architecture.gated else 1
    return count * setup.tokens * model.architecture.inner * setup.numerics.compute


def _trains(model: ModelSize) -> bool:
    return model.layer.trained_linear > 0
