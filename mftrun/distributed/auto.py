"""distributed=auto: the strategy is chosen before a run begins; see `mftrun.jobs.automatic`."""

from __future__ import annotations

from dataclasses import dataclass

from mftrun.distributed.machines import Machines
from mftrun.distributed.replicated import Ddp


@dataclass(frozen=True)
class Auto(Ddp):
    """Stands for the strategy that will be chosen by the GPUs, the model's size and what is trained of it."""


def machine_keys() -> tuple[str, ...]:
    """The keys that all strategies share."""
    return tuple(Machines.__dataclass_fields__)
