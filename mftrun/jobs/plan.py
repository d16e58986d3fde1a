"""job=plan: the memory a run would take, and what would make it fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from mftrun.distributed.machines import Machines
    from mftrun.jobs.described import Planned

PLAN_FILE = "plan.json"
_UNITS = {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6}


@dataclass(frozen=True)
class PlanJob:
    """Estimates memory from the model's sizes alone: no weights, no data, no GPU.

    Args:
        devices: GPUs of all machines to plan for; None takes as many as there would be ranks.
        device_memory: Memory of one GPU, such as ``80GiB``; None takes that of the GPUs that are here.

    Raises:
        ConfigError: There is less than one device, or the memory is not a size.
    """

    devices: int | None = None
    device_memory: str | int | None = None

    def __post_init__(self) -> None:
        if self.devices is not None and self.devices < 1:
            raise ConfigError("job.devices", f"must be 1 or more, or null, not {self.devices}")
        if self.device_memory is not None:
            memory_size(self.device_memory)

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Prints the plan and writes it to ``run_dir/plan.json``.

        Args:
            config: The resolved configuration, already checked.
            run_dir: The run's folder.

        Raises:
            ConfigError: The model's sizes cannot be had, or its adapters do not fit it.
        """
        from mftrun.distributed.support import check_combination
        from mftrun.files import write_json
        from mftrun.jobs.described import describe
        from mftrun.jobs.preparation import build_group
        from mftrun.planning.estimate import estimate
        from mftrun.planning.report import as_values, report
        from mftrun.schema import RunConfig

        typed = RunConfig.from_dict(config)
        strategy = build_group(typed, "distributed")
        self._check_devices(strategy)
        check_combination(strategy, build_group(typed, "peft"))
        planned = describe(typed, self.devices)
        memory = self._memory()
        found = estimate(planned.model, planned.setup)
        options = self._options(planned, memory) if memory is not None and found.needed > memory else []
        print(report(planned.model, planned.setup, found, memory, options))
        write_json(run_dir / PLAN_FILE, as_values(planned.model, planned.setup, found, memory, options))

    def _check_devices(self, strategy: Machines) -> None:
        from mftrun.distributed.replicated import Single

        asked = strategy.num_processes or (1 if isinstance(strategy, Single) else None)
        ranks = None if asked is None else asked * strategy.num_nodes
        if None not in (self.devices, ranks) and self.devices != ranks:
            raise ConfigError(
                "job.devices", f"is {self.devices}, and distributed asks for {ranks}; leave one of them out"
            )

    def _memory(self) -> int | None:
        if self.device_memory is not None:
            return memory_size(self.device_memory)
        from mftrun.distributed.machines import gpu_memory

        return gpu_memory()

    def _options(self, planned: Planned, memory: int) -> list[Any]:
        from mftrun.planning.advice import advice

        # The memory of the host at hand says nothing about another machine that is planned for.
        host = _host_memory() if self.device_memory is None else None
        return advice(planned.model, planned.setup, list(planned.other_adapters()), memory, host)


def memory_size(text: str | int) -> int:
    """Bytes of a size such as ``80GiB`` or ``80 GB``.

    Raises:
        ConfigError: It is none, or not above 0.
    """
    import re

    found = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", str(text))
    try:
        size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    except (KeyError, ValueError):
        size = 0
    if size <= 0:
        raise ConfigError("job.device_memory", f"must be a size such as 80GiB or 80GB, not {text!r}")
    return size


def _host_memory() -> int:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
