"""Training a model whose matrices the ranks have divided."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mftrun.distributed.fragments import PackedPart
from mftrun.distributed.ranks import Ranks
from mftrun.distributed.torch_engine import TorchEngine, whole_tensor
from mftrun.models.parts import causal_lm_of
from mftrun.models.with_nll import ModelWithNll

if TYPE_CHECKING:
    from mftrun.training.optimizers import OptimizerFactory


class TensorParallelEngine(TorchEngine):
    """Trains a model whose matrices are divided; see `Engine`.

    Args:
        ranks: Those that train it.
        model: The model-with-nll, its parts already on their ranks.
        optimizer: Makes its optimizer.
        max_grad_norm: Upper bound of the gradient's norm; None does not clip.
    """

    def __init__(
        self,
        ranks: Ranks,
        model: ModelWithNll,
        optimizer: OptimizerFactory,
        max_grad_norm: float | None,
    ) -> None:
        model = model.to(ranks.device)
        super().__init__(ranks, model, model, _separated(optimizer.build(model)), max_grad_norm)
        self._completed = _completed_by_hooks(model)

    def micro_step(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """See `Engine.micro_step`."""
        return nullcontext()

    def backward(self, share: Tensor) -> None:
        """See `Engine.backward`."""
        earlier = [parameter.grad for parameter in self._completed]
        for parameter in self._completed:
            parameter.grad = None
        share.backward()  # type: ignore[no-untyped-call]
        for parameter, before in zip(self._completed, earlier, strict=True):
            if before is not None:
                parameter.grad = before if parameter.grad is None else before.add_(parameter.grad)

    def state(self) -> dict[str, Any]:
        """See `Engine.state`."""
        return {name: _saveable(value) for name, value in super().state().items()}

    def load(self, read: Callable[[dict[str, Any]], None], *, optimizer: bool = True) -> None:
        """See `Engine.load`."""
        super().load(
            lambda state: read({name: _saveable(value) for name, value in state.items()}), optimizer=optimizer
        )

    def _clip(self) -> float:
        groups = [[p for p in g["params"] if p.grad is not None] for g in self._optimizer.param_groups]
        groups = [group for group in groups if group]
        norms = [get_total_norm([p.grad for p in group]) for group in groups]
        whole = [whole_tensor(norm, self.ranks.device) for norm in norms]
        total = torch.linalg.vector_norm(torch.stack(whole))
        for group in groups:
            clip_grads_with_norm_(group, self._max_norm, total)
        return float(total)


def _separated(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Torch's kernels for many parameters at once take divided ones or whole ones, not both."""
    groups = optimizer.param_groups
    for group in list(groups):
        whole = [p for p in group["params"] if not isinstance(p, DTensor)]
        divided = [p for p in group["params"] if isinstance(p, DTensor)]
        if whole and divided:
            group["params"] = divided
            groups.append({**group, "params": whole})
    return optimizer


def _completed_by_hooks(model: ModelWithNll) -> tuple[nn.Parameter, ...]:
    """Whole weights that each rank's own heads alone go through, such as norms of queries.

    Hooks of transformers add up what the ranks have of their gradients after every backward pass. They take
    all that a gradient holds by then, so that no earlier micro-batch's may be among it.
    """
    plan = getattr(causal_lm_of(model.model), "tp_plan", None) or {}
    marked = {name for name, style in plan.items() if style == "replicated_with_grad_allreduce"}
    named = model.model.named_parameters()
    return tuple(parameter for name, parameter in named if _rule(name.rpartition(".")[0]) in marked)


def _rule(module: str) -> str:
    """A module's name in plans, which are the same for every layer."""
    return re.sub(r"\d+", "*", module)


def _saveable(value: Any) -> Any:
    """Torch's distributed checkpoint takes the parts of packed matrices for one stretch."""
    if not isinstance(value, DTensor):
        return value
    placement: Any = value.placements[0]
    matrices = getattr(placement, "split_factor", 1)
    if matrices == 1:
        return value
    mesh = value.device_mesh
    place = {"matrices": matrices, "rank": mesh.get_local_rank(), "ranks": mesh.size()}
    return PackedPart(value.to_local(), value.shape, placement.dim % value.ndim, **place)
