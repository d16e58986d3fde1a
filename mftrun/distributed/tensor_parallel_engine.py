"""Training a model whose matrices the ranks have divided."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mftrun.distributed.ranks import Ranks
from mftrun.distributed.torch_engine import TorchEngine, whole_tensor
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

    def micro_step(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """See `Engine.micro_step`."""
        return nullcontext()

    def backward(self, share: Tensor) -> None:
        """See `Engine.backward`."""
        share.backward()  # type: ignore[no-untyped-call]

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
