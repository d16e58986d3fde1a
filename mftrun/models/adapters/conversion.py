"""Adapters that start as a part of the weights, saved as plain ones for the weights as they were.

PiSSA and OLoRA take s B0 A0 out of a weight W and train on from there. What was learned, relative to W, is
s (B A - B0 A0) = s [B, -B0] [A; A0]: an adapter of twice the rank, with the same scale s.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_START = "_first_factors"


def remember_factors(model: nn.Module) -> None:
    """Keeps a copy of the factors a model starts with, in CPU memory and outside of its state.

    Args:
        model: A `PeftModel` with low-rank adapters that were just made.
    """
    factors = ((name, p.detach()) for name, p in model.named_parameters() if _is_factor(name))
    # A model without values is for counting alone.
    setattr(model, _START, {name: p.cpu().clone() for name, p in factors if not p.is_meta})


def save_for_first_weights(
    model: Any, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    """Saves an adapter that fits the model as it was before `remember_factors`.

    Args:
        model: A `PeftModel`, trained.
        folder: Where to.
        state_dict: The model's weights, gathered from all ranks; None takes those of `model`.
    """
    found = dict(model.state_dict() if state_dict is None else state_dict)
    for name, first in getattr(model, _START).items():
        now = found[name].detach().cpu()
        down = ".lora_A." in name
        found[name] = torch.cat([now, first.to(now) if down else -first.to(now)], dim=0 if down else 1)
    with _twice_the_rank(model):
        model.save_pretrained(folder, state_dict=found)


def _is_factor(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


@contextmanager
def _twice_the_rank(model: Any) -> Iterator[None]:
    """The scale is alpha / r, or alpha / sqrt(r) with rsLoRA; it stays what it was."""
    name = model.active_adapter
    own = model.peft_config[name]
    saved = copy.deepcopy(own)
    saved.init_lora_weights = True
    saved.r = 2 * own.r
    saved.lora_alpha = own.lora_alpha * (2**0.5 if own.use_rslora else 2)
    model.peft_config[name] = saved
    try:
        yield
    finally:
        model.peft_config[name] = own
