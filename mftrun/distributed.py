"""Strategies: how many ranks a run has and how accelerate joins them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator


@runtime_checkable
class Strategy(Protocol):
    """What a run needs to know of its ranks."""

    def processes(self) -> int:
        """Number of ranks to start on this machine."""

    def accelerator(self, precision: str) -> Accelerator:
        """The accelerator of this rank.

        Args:
            precision: ``fp32`` or ``bf16``.
        """


@dataclass(frozen=True)
class Single:
    """One process on one device, without a process group.

    Args:
        num_processes: None or 1.

    Raises:
        ConfigError: Another number of processes was asked for.
    """

    num_processes: int | None = None

    def __post_init__(self) -> None:
        if self.num_processes not in (None, 1):
            raise ConfigError(
                "distributed.num_processes",
                f"distributed=single runs one process, not {self.num_processes}; use distributed=ddp",
            )

    def processes(self) -> int:
        """Number of ranks to start on this machine: 1."""
        return 1

    def accelerator(self, precision: str) -> Accelerator:
        """The accelerator of the only rank."""
        return _accelerator(precision)


@dataclass(frozen=True)
class Ddp:
    """Data parallel: every rank holds the whole model (torch DistributedDataParallel).

    Args:
        num_processes: Ranks on this machine; None takes the visible GPUs, or 1 without a GPU.

    Raises:
        ConfigError: Fewer than one rank, or more ranks than GPUs on a GPU machine.
    """

    num_processes: int | None = None

    def processes(self) -> int:
        """Number of ranks to start on this machine."""
        gpus = _visible_gpus()
        wanted = self.num_processes if self.num_processes is not None else max(gpus, 1)
        if wanted < 1:
            raise ConfigError("distributed.num_processes", f"must be 1 or more, not {wanted}")
        if gpus and wanted > gpus:
            raise ConfigError(
                "distributed.num_processes",
                f"{wanted} ranks need as many GPUs, and {gpus} are visible; lower it, or show more GPUs",
            )
        return wanted

    def accelerator(self, precision: str) -> Accelerator:
        """The accelerator of this rank, joined to the others where there are any."""
        return _accelerator(precision)


def resolve_precision(asked: str) -> str:
    """Turns ``auto`` into ``bf16`` where the GPU computes in it and into ``fp32`` elsewhere."""
    import torch

    if asked != "auto":
        return asked
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"


def leave_group() -> None:
    """Ends this rank's process group; call it when nothing of the training is referenced any more.

    The group must outlive the model: DDP's reducer, freed last, would wait for gloo's threads while it holds
    the interpreter's lock that those threads need.
    """
    import gc

    from torch import distributed

    gc.collect()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _visible_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _accelerator(precision: str) -> Accelerator:
    import os

    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        # Without it accelerate trains every rank alone on a machine that has no GPU.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    # Buffers are the same on every rank from the start; sending them before each forward is waste.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    mixed = {"fp32": "no", "bf16": "bf16"}[precision]
    return Accelerator(cpu=on_cpu, mixed_precision=mixed, kwargs_handlers=[ddp])
