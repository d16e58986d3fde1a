"""Where the ranks of a run live: how many on each machine, and how the machines find each other."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mftrun.errors import ConfigError

_PORTS = range(1, 65536)
_RANKS_PER_CORE = 8


@dataclass(frozen=True)
class Machines:
    """The same for every strategy, which inherits from it.

    Args:
        num_processes: Ranks on each machine; None takes its visible GPUs, or 1 without a GPU.
        num_nodes: Machines.
        node_rank: Number of this machine, from 0.
        main_address: Name or address at which the others reach machine 0; None for one machine alone.
        main_port: Port there.
        max_restarts: How often all ranks are started again after one of them has crashed.

    Raises:
        ConfigError: A value is out of range, or several machines are to meet nowhere.
    """

    num_processes: int | None = None
    num_nodes: int = 1
    node_rank: int = 0
    main_address: str | None = None
    main_port: int = 29500
    max_restarts: int = 0

    def __post_init__(self) -> None:
        _at_least("num_processes", 1 if self.num_processes is None else self.num_processes, 1)
        _at_least("num_nodes", self.num_nodes, 1)
        _at_least("max_restarts", self.max_restarts, 0)
        if self.main_port not in _PORTS:
            _refuse("main_port", f"must be 1 to {_PORTS[-1]}, not {self.main_port}")
        if not 0 <= self.node_rank < self.num_nodes:
            nodes = f"distributed.num_nodes={self.num_nodes}"
            _refuse("node_rank", f"must be 0 to {self.num_nodes - 1} with {nodes}, not {self.node_rank}")
        if self.num_nodes > 1 and not self.main_address:
            _refuse("main_address", "is needed with several nodes: where do the others reach node 0?")

    def processes(self) -> int:
        """Number of ranks to start on this machine.

        Raises:
            ConfigError: There are more ranks than GPUs, or without any more than the cores can bear.
        """
        gpus = visible_gpus()
        wanted = self.num_processes if self.num_processes is not None else max(gpus, 1)
        if gpus and wanted > gpus:
            _refuse(
                "num_processes",
                f"{wanted} ranks need as many GPUs, and {gpus} are visible; lower it, or show more GPUs",
            )
        if not gpus and wanted > cores() * _RANKS_PER_CORE:
            _refuse(
                "num_processes",
                f"{wanted} ranks are too many for {cores()} CPU cores, and no GPU is visible; "
                f"at most {cores() * _RANKS_PER_CORE} can be tried here",
            )
        return wanted


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def visible_gpus() -> int:
    """How many CUDA devices this process may use."""
    import torch

    return torch.cuda.device_count()


def gpu_memory() -> int | None:
    """Bytes of the smallest CUDA device that this process may use; None without any."""
    import torch

    devices = range(visible_gpus())
    return min((torch.cuda.get_device_properties(number).total_memory for number in devices), default=None)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        _refuse(name, f"must be {least} or more, not {value}")


def _refuse(name: str, message: str) -> None:
    raise ConfigError(f"distributed.{name}", message)
