"""The output head: logits of one chunk of target tokens at a time, and what belongs to its weight."""

from __future__ import annotations

from mftrun.planning.model import ModelSize
from mftrun.planning.setup import Setup

_FP32 = 4
_FUSED_CHUNK = 1024
MAX_LOGITS = 2**26
"""Logits of a chunk, at most; that of `mftrun.models.heads` (a test compares)."""


def kept(model: ModelSize, setup: Setup) -> int:
    """Bytes kept until the backward pass begins: the hidden states that predict, and their gradient.

    Every position is taken to predict a target; the prompt's do not, and leave some memory over.
    """
    return 2 * setup.tokens * model.architecture.hidden * setup.numerics.stream


def peak(model: ModelSize, setup: Setup) -> int:
    """Bytes in use at most while the head's own gradients are computed, besides what is kept."""
    if setup.head == "fused":  # it works on one buffer of logits in place
        return _chunk(model, setup, _FUSED_CHUNK) // 3 + _weight(model, setup)
    if setup.head == "liger":
        return _liger(model, setup) + _weight(model, setup)
    chunk = _chunk(model, setup, max(1, MAX_LOGITS // model.architecture.vocab))
    return max(chunk + _weight(model, setup), chunk // 2 + 2 * _weight(model, setup))


def forward_peak(model: ModelSize, setup: Setup) -> int:
    """Bytes in use at most while the head makes losses, besides what is kept."""
    if setup.head != "chunked":  # the others make gradients at once
        return peak(model, setup)
    chunk = _chunk(model, setup, max(1, MAX_LOGITS // model.architecture.vocab))
    return chunk + _copy(model, setup)


def embedding_gradient(model: ModelSize, setup: Setup) -> int:
    """Bytes of the embedding's gradient, the last one to come; as large as the embedding."""
    sizes = model.architecture
    return sizes.vocab * sizes.hidden * setup.numerics.weight if model.trains_head else 0


def _chunk(model: ModelSize, setup: Setup, tokens: int) -> int:
    """The log-softmax of a chunk, its gradient, and the logits' gradient, each in 32 bit."""
    return 3 * min(tokens, setup.tokens) * model.architecture.vocab * _FP32


def _weight(model: ModelSize, setup: Setup) -> int:
    """The head's weight as it computes, and its gradient as it grows from chunk to chunk."""
    sizes, numerics = model.architecture, setup.numerics
    narrow = numerics.compute if setup.half else numerics.weight
    growing = narrow if model.trains_head else 0
    return _copy(model, setup) + sizes.vocab * sizes.hidden * growing


def _copy(model: ModelSize, setup: Setup) -> int:
    """Autocast's copy of the head's weight."""
    size = model.architecture.vocab * model.architecture.hidden
    return size * setup.numerics.compute if setup.numerics.casts_weights else 0


def _liger(model: ModelSize, setup: Setup) -> int:
    """Liger makes chunks so small that their logits take about as much as the hidden states."""
    return 2 * setup.tokens * model.architecture.hidden * (setup.numerics.compute + _FP32)
