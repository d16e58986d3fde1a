"""Training the whole model on every rank, through accelerate."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mftrun.distributed.ranks import Ranks
from mftrun.distributed.torch_engine import TorchEngine
from mftrun.models.with_nll import ModelWithNll

if TYPE_CHECKING:
    from mftrun.training.optimizers import OptimizerFactory


class ReplicatedEngine(TorchEngine):
    """Trains the whole model on every rank; see `Engine`.

    Args:
        ranks: Those that train it.
        model: The model-with-nll.
        optimizer: Makes its optimizer.
        max_grad_norm: Upper bound of the gradient's norm; None does not clip.
    """

    def __init__(
        self, ranks: Ranks, model: ModelWithNll, optimizer: OptimizerFactory, max_grad_norm: float | None
    ) -> None:
        bare = model.to(ranks.device)
        self._accelerator = ranks.accelerator
        super().__init__(ranks, self._accelerator.prepare(bare), bare, optimizer.build(bare), max_grad_norm)

    def micro_step(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Ranks exchange gradients once, in the last backward pass."""
        context: AbstractContextManager[Any] = (
            nullcontext() if is_last else self._accelerator.no_sync(self.model)
        )
        return context

    def backward(self, share: Tensor) -> None:
        """DDP averages gradients over the ranks, so that each share is multiplied by their number."""
        self._accelerator.backward(share * self.ranks.count)
