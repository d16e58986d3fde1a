"""Checks on a loaded model: that its losses are its own, and that packed segments stay apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mftrun.errors import ConfigError
from mftrun.models.heads import Head
from mftrun.models.parts import causal_lm_of, decode, output_head_of, text_config_of
from mftrun.models.with_nll import ModelWithNll

_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4}
_LOW_PRECISION_TOLERANCE = 5e-2


@torch.no_grad()
def verify_against_logits(model: nn.Module, head: Head | None = None, tokens: int = 16) -> float:
    """Compares nlls with those of the model's own logits on random tokens: no family may be silently wrong.

    Random number streams and training mode are left as they were.

    Args:
        model: A causal language model, or a peft wrapper around one.
        head: The head to verify; None takes what would be chosen.
        tokens: Length of the random text.

    Returns:
        The largest difference, relative to 1 + nll.

    Raises:
        ConfigError: They differ, or the model cannot be run in parts.
    """
    causal_lm = causal_lm_of(model)
    ids, positions = _random_text(causal_lm, tokens)
    targets = ids[0, 1:]
    with _same_random_numbers(causal_lm):
        try:
            nll = ModelWithNll(model, head)(ids, positions, positions[0, :-1], targets).nll
        except (TypeError, AttributeError, KeyError) as error:
            raise ConfigError("model", _refusal(causal_lm, f"{type(error).__name__}: {error}")) from error
    with _same_random_numbers(causal_lm):
        logits = causal_lm(input_ids=ids, position_ids=positions, use_cache=False).logits
    own = F.cross_entropy(logits[0, :-1].float(), targets, reduction="none")
    worst = float(((nll - own).abs() / (1 + own)).max())
    if not worst <= _tolerance(causal_lm, logits.dtype):
        reason = f"its own logits give losses that differ by {worst:.2g} from those computed here"
        raise ConfigError("model", _refusal(causal_lm, reason))
    return worst


@torch.no_grad()
def verify_packing(model: nn.Module, tokens: int = 12) -> float:
    """Compares a packed segment with itself alone, and with itself behind another first segment.

    The second comparison needs no tolerance, as nothing but the leak could make a difference: shapes are the
    same. It therefore finds small leaks in 16 bit, too. Models with experts group tokens by their routing, so
    that rounding does differ there.

    Args:
        model: A causal language model, or a peft wrapper around one.
        tokens: Length of each segment.

    Returns:
        The largest difference of hidden states, relative to the largest of them.

    Raises:
        ConfigError: A packed segment is seen by the next one.
    """
    causal_lm = causal_lm_of(model)
    ids, positions = _random_text(causal_lm, 2 * tokens)
    packed = positions % tokens
    training = model.training
    model.eval()
    try:
        together = decode(causal_lm, ids, packed)[0][0, tokens:]
        changed = torch.cat([ids[:, :tokens].flip(1), ids[:, tokens:]], dim=1)
        behind_another = decode(causal_lm, changed, packed)[0][0, tokens:]
        alone = decode(causal_lm, ids[:, tokens:], packed[:, tokens:])[0][0]
    finally:
        model.train(training)
    scale = alone.abs().max()
    worst = float((together - alone).abs().max() / scale)
    leak = float((together - behind_another).abs().max() / scale)
    if not (worst <= _tolerance(causal_lm, alone.dtype) and leak <= _leak_tolerance(causal_lm, alone.dtype)):
        family, attention = causal_lm.config.model_type, causal_lm.config._attn_implementation
        raise ConfigError(
            "rows",
            f"packed samples of {family!r} see each other under {attention} attention "
            f"(difference {max(worst, leak):.2g}); use rows=padding",
        )
    return worst


def _random_text(causal_lm: Any, tokens: int) -> tuple[Tensor, Tensor]:
    device = causal_lm.device
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(int(text_config_of(causal_lm).vocab_size), (1, tokens), generator=generator)
    return ids.to(device), torch.arange(tokens, device=device)[None]


@contextmanager
def _same_random_numbers(causal_lm: Any) -> Iterator[None]:
    """The same dropout in the decoder every time, none in the head, and no trace left behind."""
    output = output_head_of(causal_lm)
    training = output.training
    devices = [causal_lm.device] if causal_lm.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        output.eval()
        try:
            yield
        finally:
            output.train(training)


def _tolerance(causal_lm: Any, computed: torch.dtype) -> float:
    if getattr(causal_lm, "is_quantized", False):
        return _LOW_PRECISION_TOLERANCE  # whatever it returns, it computes in 16 bit
    return _TOLERANCE.get(computed, _LOW_PRECISION_TOLERANCE)


def _leak_tolerance(causal_lm: Any, computed: torch.dtype) -> float:
    has_experts = any("expert" in name for name in text_config_of(causal_lm).to_dict())
    return _tolerance(causal_lm, computed) if has_experts else 1e-6


def _refusal(causal_lm: Any, reason: str) -> str:
    family = causal_lm.config.model_type
    return f"{type(causal_lm).__name__} (model_type {family!r}) is not supported: {reason}"


def check_length(model: nn.Module, max_length: int) -> None:
    """Refuses rows that are longer than the positions a model has.

    Args:
        model: A causal language model, or a peft wrapper around one.
        max_length: Longest row.

    Raises:
        ConfigError: They are.
    """
    config = text_config_of(causal_lm_of(model))
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and max_length > longest:
        raise ConfigError(
            "data.max_length", f"the model has {longest} positions, and {max_length} were asked for"
        )
    _refuse_length_dependence(config, max_length)


def _refuse_length_dependence(config: Any, max_length: int) -> None:
    """Rotary embeddings that change with the row's length would let padding and packing change losses."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type"))
    original = rope.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    if kind in ("longrope", "dynamic") and original is not None and max_length > original:
        raise ConfigError(
            "data.max_length",
            f"{kind} rotary embeddings of this model change in rows longer than {original} tokens, so that a "
            f"sample's loss would depend on its neighbours; use {original} or less",
        )
