"""From the keys of `hydra.launcher` to jobs that Slurm has taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mftrun.errors import ConfigError
from mftrun.slurm.waiting import queued

_REQUEUE = frozenset({"requeue", "no-requeue", "no_requeue"})
# Around the lines of `setup`: without the module that one loads, a run would train with another one.
_STOP = "trap 'echo \"error: hydra.launcher.setup: failed: $BASH_COMMAND\" >&2; exit 1' ERR"
_GO_ON = "trap - ERR"
# What the executor calls alike on all clusters; everything else is Slurm's.
_COMMON = frozenset(
    {"timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "nodes", "name", "stderr_to_stdout"}
)


def submit(
    work: Callable[..., Any],
    calls: Sequence[Sequence[Any]],
    *,
    folder: str,
    executor: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> list[Any]:
    """Submit one job for each call of `work`, as one array.

    Args:
        work: What pickles.
        calls: Its arguments, one list for each job.
        folder: For scripts, logs and results; `%j` stands for the job's number.
        executor: How often jobs come back, and with which interpreter.
        parameters: Of `sbatch`, by the names in `hydra.launcher`.

    Returns:
        The jobs, in the order of the calls.

    Raises:
        ConfigError: There is no Slurm here, or it refuses the jobs.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    if (minutes := parameters.get("timeout_min", 1)) < 1:  # for Slurm, 0 is no limit at all
        raise ConfigError("hydra.launcher.timeout_min", f"must be 1 or more minutes, not {minutes}")
    try:
        slurm = submitit.AutoExecutor(folder=folder, cluster="slurm", **executor)
    except RuntimeError as error:
        raise ConfigError(
            "hydra/launcher", "there is no Slurm here (no srun in PATH): submit from a login node"
        ) from error
    slurm.update_parameters(tasks_per_node=1, **_named(parameters))
    try:
        jobs: list[Any] = slurm.map_array(work, *zip(*calls, strict=True))
    except FailedJobError as error:
        raise ConfigError("hydra.launcher", f"Slurm refuses the job: {_said(error)}") from error
    return jobs


def refuse_queued(folder: Path) -> None:
    """Refuse to submit a sweep again while jobs of it are queued or run.

    Args:
        folder: Holds one folder for each job submitted so far, named by its number.

    Raises:
        ConfigError: Some are.
    """
    numbers = [path.name for path in folder.glob("*") if path.name.partition("_")[0].isdecimal()]
    if numbers and (alive := queued(numbers)):
        listed = ", ".join(f"{number} ({state.lower()})" for number, state in sorted(alive.items()))
        raise ConfigError(
            "hydra/launcher",
            f"Slurm still has jobs of this sweep: {listed}; wait for them, end them with scancel, or start "
            "another sweep beside it with resume=never",
        )


def returning(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of sbatch with which a job may be queued again, unless they say themselves whether it may.

    Args:
        options: As the user gave them. Sites differ in what they do where nothing is said.
    """
    asked = [bool(value) is (name == "requeue") for name, value in options.items() if name in _REQUEUE]
    others = {name: value for name, value in options.items() if name not in _REQUEUE}
    return {**others, "requeue" if all(asked) else "no-requeue": True}


def _named(parameters: Mapping[str, Any]) -> dict[str, Any]:
    more = returning(parameters.get("additional_parameters") or {})
    given = {name: value for name, value in parameters.items() if value is not None}
    given["additional_parameters"] = more
    if setup := given.get("setup"):
        given["setup"] = [_STOP, *setup, _GO_ON]
    return {name if name in _COMMON else f"slurm_{name}": value for name, value in given.items()}


def _said(error: Exception) -> str:
    """What sbatch itself has said."""
    lines = [line.partition("error: ")[2] for line in str(error).splitlines() if "error: " in line]
    return "; ".join(dict.fromkeys(filter(None, lines))) or str(error)
