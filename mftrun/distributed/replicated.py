"""Strategies in which every rank holds the whole model: one process, or torch's DistributedDataParallel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mftrun.distributed.base import Sharding
from mftrun.distributed.group import join
from mftrun.distributed.machines import Machines
from mftrun.distributed.ranks import Ranks
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from mftrun.models.base import ModelSource
    from mftrun.models.with_nll import ModelWithNll
    from mftrun.training.optimizers import OptimizerFactory

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Replicated(Machines):
    @property
    def sharding(self) -> Sharding:
        """Nothing is divided."""
        return Sharding()

    @property
    def divides_data(self) -> bool:
        """True."""
        return True

    @property
    def needs_files(self) -> bool:
        """False."""
        return False

    def join(self, precision: str) -> Ranks:
        """See `Strategy.join`."""
        return join(precision)

    def load(
        self, source: ModelSource, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype, ranks: Ranks
    ) -> PreTrainedModel:
        """See `Strategy.load`: each rank needs all of it."""
        return source.load(tokenizer, dtype)

    def engine(
        self,
        ranks: Ranks,
        model: ModelWithNll,
        optimizer: OptimizerFactory,
        *,
        precision: str,
        max_grad_norm: float | None,
    ) -> ReplicatedEngine:
        """See `Strategy.engine`. The precision is that which the ranks have joined with."""
        return ReplicatedEngine(ranks, model, optimizer, max_grad_norm)

    def adapter_dtype(self, precision: str) -> None:
        """Any will do."""

    def quant_storage(self, precision: str) -> torch.dtype:
        """Bytes, as bitsandbytes has it."""
        import torch

        return torch.uint8


@dataclass(frozen=True)
class Single(_Replicated):
    """One process on one device, without a process group.

    Raises:
        ConfigError: Another number of processes was asked for.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_processes not in (None, 1) or self.num_nodes != 1:
            raise ConfigError(
                "distributed.num_processes",
                f"distributed=single runs one process, not {(self.num_processes or 1) * self.num_nodes}; "
                "use distributed=ddp",
            )

    def processes(self) -> int:
        """Number of ranks to start on this machine: 1."""
        return 1


@dataclass(frozen=True)
class Ddp(_Replicated):
    """Data parallel: every rank holds the whole model, and gradients are averaged while they are computed."""


class ReplicatedEngine:
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
        self.ranks = ranks
        self.bare = model.to(ranks.device)
        self._accelerator = ranks.accelerator
        self.model, self._optimizer = self._accelerator.prepare(self.bare, optimizer.build(self.bare))
        self._max_norm = math.inf if max_grad_norm is None else max_grad_norm

    def micro_step(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Ranks exchange gradients once, in the last backward pass."""
        context: AbstractContextManager[Any] = (
            nullcontext() if is_last else self._accelerator.no_sync(self.model)
        )
        return context

    def backward(self, share: Tensor) -> None:
        """DDP averages gradients over the ranks, so that each share is multiplied by their number."""
        self._accelerator.backward(share * self.ranks.count)

    def step(self, rate: float) -> float:
        """See `Engine.step`."""
        norm = float(self._accelerator.clip_grad_norm_(self.model.parameters(), self._max_norm))
        if math.isfinite(norm):
            set_rate(self._optimizer, rate)
            self._optimizer.step()
        self._optimizer.zero_grad()
        return norm

    def within_forward(self, function: Callable[[ModelWithNll], Result]) -> Result:
        """Whole weights can be computed with anywhere."""
        import torch

        with torch.no_grad():
            return function(self.bare)

    def state(self) -> dict[str, Any]:
        """See `Engine.state`."""
        from mftrun.distributed.trained import training_state

        return training_state(self.bare, self._optimizer.optimizer)

    def load(self, read: Callable[[dict[str, Any]], None], *, optimizer: bool = True) -> None:
        """See `Engine.load`."""
        from mftrun.distributed.trained import training_state

        read(training_state(self.bare, self._optimizer.optimizer if optimizer else None))

    def gathered(self, names: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        """See `Engine.gathered`."""
        import torch

        from mftrun.distributed.trained import whole_tensors

        for name, tensor in whole_tensors(self.bare, names):
            yield name, tensor.cpu() if self.ranks.is_main else torch.empty(0)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
