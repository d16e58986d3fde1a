"""Strategies in which every rank holds the whole model: one process, or torch's DistributedDataParallel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mftrun.distributed.base import Engine, Sharding
from mftrun.distributed.common import CommonStrategy
from mftrun.distributed.ranks import Ranks
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from mftrun.models.with_nll import ModelWithNll
    from mftrun.training.optimizers import OptimizerFactory


@dataclass(frozen=True)
class _Replicated(CommonStrategy):
    @property
    def sharding(self) -> Sharding:
        """Nothing is divided."""
        return Sharding()

    def engine(
        self,
        ranks: Ranks,
        model: ModelWithNll,
        optimizer: OptimizerFactory,
        *,
        precision: str,
        max_grad_norm: float | None,
    ) -> Engine:
        """See `Strategy.engine`. The precision is that which the ranks have joined with."""
        from mftrun.distributed.replicated_engine import ReplicatedEngine

        return ReplicatedEngine(ranks, model, optimizer, max_grad_norm)


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
