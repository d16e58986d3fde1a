"""The keys of `hydra.launcher` for Slurm, with their types; their values are in launchers/hydra/launcher/."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class LauncherKeys:
    """See `launchers/hydra/launcher/mftrun_slurm.yaml`, which says what each is."""

    _target_: str = MISSING
    submitit_folder: str = MISSING
    name: str = MISSING
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    comment: str | None = None
    timeout_min: int = MISSING
    nodes: int = MISSING
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    gres: str | None = None
    exclusive: Any = None
    array_parallelism: int = MISSING
    signal_delay_s: int = MISSING
    max_num_timeout: int = MISSING
    wait: bool | None = None
    setup: list[str] = field(default_factory=list)
    container: str | None = None
    python: str | None = None
    srun_args: list[str] = field(default_factory=list)
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    stderr_to_stdout: bool = MISSING
