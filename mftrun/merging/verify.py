"""Does the merged model say what the base with its adapter says? Logits on a probe text, layer by layer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mftrun.errors import MftrunError
from mftrun.merging.values import fill

log = logging.getLogger(__name__)

Fetch = Callable[[str], Tensor]
"""Gives the value of a parameter, or persistent buffer, by its name in the model."""

Pair = tuple[Tensor, Tensor]
"""Logits of the base alone, and of the base with its adapter."""

# Largest difference of a logit, relative to the largest logit: weights rounded to 16 bit make more of it.
_TOLERANCE = MappingProxyType({torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 1e-2})
_COARSE = 5e-2


@dataclass(frozen=True)
class Comparison:
    """How far logits are apart, relative to the largest of the adapter's.

    Attributes:
        difference: Merged model and base with adapter: what rounding to the dtype of the weights makes.
        effect: Base with adapter and base alone.
        nll: Of the probe text with the adapter, nats per token.
        merged_nll: The same of the merged model.
        tolerance: What `difference` may be.
    """

    difference: float
    effect: float
    nll: float
    merged_nll: float
    tolerance: float

    def check(self) -> None:
        """Refuses a merged model that is another one.

        Raises:
            MftrunError: Its logits differ by more than rounding explains.
        """
        if not self.difference <= self.tolerance:
            raise MftrunError(f"the merged model is another than base and adapter, and is not kept: {self}")
        if self.difference > self.effect / 2 and self.effect > 0:
            log.warning(
                "rounding the merged weights changes logits by %.2g, and the whole adapter by %.2g only: "
                "keep it with job.dtype=float32",
                self.difference,
                self.effect,
            )

    def __str__(self) -> str:
        return (
            f"logits on the probe text differ by {self.difference:.2g} of the largest (at most "
            f"{self.tolerance:.2g} is expected; the adapter itself makes {self.effect:.2g}), "
            f"{self.nll:.4f} nats per token with the adapter, {self.merged_nll:.4f} merged"
        )


def compare(before: Pair, merged: Tensor, ids: Tensor, dtype: torch.dtype) -> Comparison:
    """Compares logits of one text, each float32 [tokens, entries].

    Args:
        before: Of the base alone, and of the base with its adapter.
        merged: Of the merged model.
        ids: The text, int64 [tokens].
        dtype: The least exact one of the merged weights.
    """
    base, adapted = before
    scale = adapted.abs().max()
    rows = min(base.shape[-1], adapted.shape[-1])
    return Comparison(
        difference=float((merged - adapted).abs().max() / scale),
        effect=float((base[:, :rows] - adapted[:, :rows]).abs().max() / scale),
        nll=_nll(adapted, ids),
        merged_nll=_nll(merged, ids),
        tolerance=_TOLERANCE.get(dtype, _COARSE),
    )


@torch.no_grad()
def logits(model: Any, fetch: Fetch, ids: Tensor) -> Tensor:
    """Runs a model without numbers, filling in one decoder layer after the other, in 32 bit.

    Args:
        model: A causal language model, or a `PeftModel` around one, on the meta device.
        fetch: Gives values.
        ids: int64 [tokens].

    Returns:
        Logits, float32 [tokens, entries].
    """
    with _resident(model, fetch), _passing(model, fetch):
        found: Tensor = model(input_ids=ids[None], use_cache=False).logits[0].float()
    return found


def probe_ids(tokenizer: Any, text: str, entries: int) -> Tensor:
    """The probe: the text, and the last entry of the embeddings, which may have grown.

    Args:
        tokenizer: The adapter's or the base's; None takes the first entries.
        text: What is compared.
        entries: Rows of the embeddings.

    Returns:
        int64 [tokens].
    """
    ids = range(min(32, entries)) if tokenizer is None else tokenizer(text)["input_ids"]
    return torch.tensor([*(one for one in ids if one < entries), entries - 1])


def _nll(found: Tensor, ids: Tensor) -> float:
    return float(F.cross_entropy(found[:-1], ids[1:]))


def _units(model: nn.Module) -> Mapping[str, nn.Module]:
    """The layers: members of lists of modules that lie in no other list."""
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(path.startswith(f"{one}.") for one in found):
            found |= {f"{path}.{name}": child for name, child in module.named_children()}
    return found


@contextmanager
def _passing(model: nn.Module, fetch: Fetch) -> Iterator[None]:
    """Layers have values while they compute."""
    handles = []
    for path, unit in _units(model).items():
        handles.append(unit.register_forward_pre_hook(_Filling(path, fetch)))
        handles.append(unit.register_forward_hook(_emptied))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Filling:
    path: str
    fetch: Fetch

    def __call__(self, module: nn.Module, arguments: Any) -> None:
        names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
        fill(module, {name: self.fetch(f"{self.path}.{name}") for name in names})


def _emptied(module: nn.Module, arguments: Any, output: Any) -> None:
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    fill(module, {name: torch.empty_like(module.get_parameter(name), device="meta") for name in names})


@contextmanager
def _resident(model: nn.Module, fetch: Fetch) -> Iterator[None]:
    """Embeddings, head and norms have values all the time."""
    units = tuple(f"{path}." for path in _units(model))
    names = [name for name, _ in model.named_parameters(remove_duplicate=False) if not name.startswith(units)]
    fill(model, {name: fetch(name) for name in names})
    _fill_buffers(model, fetch)
    try:
        yield
    finally:
        fill(model, {name: torch.empty_like(model.get_parameter(name), device="meta") for name in names})


def _fill_buffers(model: nn.Module, fetch: Fetch) -> None:
    """Those that are saved; the others were computed when the model was made."""
    saved = set(model.state_dict())
    for name, buffer in model.named_buffers():
        if name in saved:
            with contextlib.suppress(KeyError):  # older files lack what newer classes save
                buffer.copy_(fetch(name))
