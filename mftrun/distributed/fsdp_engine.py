"""Training a model whose parameters are slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from mftrun.distributed.base import called_within
from mftrun.distributed.ranks import Ranks
from mftrun.distributed.torch_engine import TorchEngine
from mftrun.models.with_nll import ModelWithNll

if TYPE_CHECKING:
    from mftrun.training.optimizers import OptimizerFactory

Result = TypeVar("Result")


class FsdpEngine(TorchEngine):
    """Trains a model whose parameters are slices; see `Engine`.

    Args:
        ranks: Those that train it.
        model: The model-with-nll, already sharded.
        optimizer: Makes its optimizer.
        max_grad_norm: Upper bound of the gradient's norm; None does not clip.
        accumulate: Whether gradients stay whole until a step's last micro-batch.
    """

    def __init__(
        self,
        ranks: Ranks,
        model: ModelWithNll,
        optimizer: OptimizerFactory,
        max_grad_norm: float | None,
        accumulate: bool,
    ) -> None:
        super().__init__(ranks, model, model, optimizer.build(model), max_grad_norm)
        self._accumulate = accumulate

    def micro_step(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """See `Engine.micro_step`."""
        sharded: Any = self.model
        sharded.set_is_last_backward(is_last)
        sharded.set_requires_gradient_sync(is_last or not self._accumulate)
        return nullcontext()

    def backward(self, share: Tensor) -> None:
        """Gradients are averaged over the ranks, so that each share is multiplied by their number."""
        (share * self.ranks.count).backward()  # type: ignore[no-untyped-call]

    def within_forward(self, function: Callable[[ModelWithNll], Result]) -> Result:
        """See `Engine.within_forward`."""
        return called_within(self.model, function)

    def state(self) -> dict[str, Any]:
        """See `Engine.state`. The tensors are distributed ones."""
        self._let_go()
        return super().state()

    def load(self, read: Callable[[dict[str, Any]], None], *, optimizer: bool = True) -> None:
        """See `Engine.load`."""
        self._let_go()
        super().load(read, optimizer=optimizer)

    def gathered(self, names: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        """See `Engine.gathered`."""
        self._let_go()
        yield from super().gathered(names)

    def _let_go(self) -> None:
        """Leaves slices where a forward pass that no backward pass followed has left gathered weights."""
        from torch.distributed.fsdp import FSDPModule

        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
