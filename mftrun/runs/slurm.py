"""What Slurm says of the jobs of run folders; nothing where it is not installed or does not answer."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mftrun.runs.reading import RunFolder, State

Runner = Callable[[Sequence[str]], str]
"""Runs a command and gives its stdout; raises OSError or subprocess.SubprocessError where it cannot."""

JOB_NAME = "slurm_job"
"""File in a run's folder with the id of the Slurm job that works or worked there."""

SUBMITTED = ".submitit"
"""Folder in that of a sweep: what it handed to Slurm, one folder for each job, named by its id."""

_JOB_ID = re.compile(r"\d+(_\d+)?")
_SECONDS = 15
_UNKNOWN = "Invalid job id"
_MOST_IDS = 200  # of one command line
_SQUEUE = ("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r")
_SACCT = ("sacct", "-X", "--noheader", "--parsable2", "--format=JobID,State")
_LIVE: Mapping[str, State] = MappingProxyType(
    {
        "PENDING": State.WAITING,
        "REQUEUED": State.WAITING,
        "REQUEUE_HOLD": State.WAITING,
        "CONFIGURING": State.WAITING,
        "RUNNING": State.RUNNING,
        "COMPLETING": State.RUNNING,
        "SUSPENDED": State.RUNNING,
    }
)


@dataclass(frozen=True)
class SlurmJob:
    """One job, or one element of an array.

    Attributes:
        job_id: Such as `12` or `12_3`.
        state: Slurm's word for it, such as PENDING or TIMEOUT; None where Slurm does not know it any more.
        reason: Why it waits; None where it does not.
        is_gone: Whether Slurm answers, and has it no more.
    """

    job_id: str
    state: str | None = None
    reason: str | None = None
    is_gone: bool = False

    def __str__(self) -> str:
        return " ".join(
            part for part in (self.job_id, self.state, self.reason and f"({self.reason})") if part
        )


def run_command(command: Sequence[str]) -> str:
    """Runs a command, at most 15 seconds long.

    Raises:
        OSError: It is not installed.
        subprocess.SubprocessError: It does not answer; that it knows none of the jobs is an answer.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if not done.stdout and _UNKNOWN not in done.stderr:
        done.check_returncode()
    return done.stdout


def slurm_id(run: RunFolder) -> str | None:
    """The Slurm job of a run: what its folder says, else Hydra's record of a submitted job."""
    try:
        noted = (run.path / JOB_NAME).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        noted = ""
    if _JOB_ID.fullmatch(noted):
        return noted
    job, launcher = run.hydra.get("job"), run.hydra.get("launcher")
    target = str(launcher.get("_target_")) if isinstance(launcher, Mapping) else ""
    found = str(job.get("id")) if isinstance(job, Mapping) else ""
    return found if "SlurmLauncher" in target and _JOB_ID.fullmatch(found) else None


def note_slurm_job(run_dir: Path, environ: Mapping[str, str]) -> None:
    """Writes which Slurm job works in a run's folder; nothing outside Slurm.

    Args:
        run_dir: The run's folder.
        environ: The environment of the process.
    """
    job_id = _own_id(environ)
    if job_id is not None:
        (run_dir / JOB_NAME).write_text(f"{job_id}\n", encoding="utf-8")


def submitted_ids(sweep_dir: Path) -> list[str]:
    """The jobs that a sweep handed to Slurm, whether or not they have begun, in the order of their ids."""
    names = [path.name for path in (sweep_dir / SUBMITTED).glob("*") if _JOB_ID.fullmatch(path.name)]
    arrays = {name.partition("_")[0] for name in names if "_" in name}  # their scripts are no jobs
    return sorted(
        (name for name in names if name not in arrays),
        key=lambda name: [int(part) for part in name.split("_")],
    )


def slurm_jobs(ids: Sequence[str], run: Runner = run_command) -> dict[str, SlurmJob]:
    """Asks squeue, and for what it does not know any more sacct.

    Args:
        ids: Jobs, or elements of arrays.
        run: How commands are run.

    Returns:
        Id to job, for each id; one that Slurm does not know has no state.
    """
    found: dict[str, SlurmJob] = {}
    for some in _portions(ids):
        told = _asked([*_SQUEUE, f"--jobs={','.join(some)}"], run)
        if told is not None:
            found |= {one: told.get(one, SlurmJob(one, is_gone=True)) for one in some}
    for some in _portions([one for one in ids if one not in found or found[one].is_gone]):
        found |= _asked([*_SACCT, f"--jobs={','.join(some)}"], run) or {}
    return {one: found.get(one, SlurmJob(one)) for one in ids}


def live_state(job: SlurmJob | None) -> State | None:
    """Whether a job waits or runs; None for one that is over, or that Slurm does not know."""
    return None if job is None or job.state is None else _LIVE.get(job.state)


def state_with(run: RunFolder, job: SlurmJob | None) -> State:
    """What became of a run, when Slurm is asked, too: a job on another machine may hold no lock seen here."""
    told = live_state(job)
    return run.state if told is None or run.is_finished else told


def _own_id(environ: Mapping[str, str]) -> str | None:
    array, element = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array and element else environ.get("SLURM_JOB_ID")


def _portions(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _MOST_IDS] for start in range(0, len(ids), _MOST_IDS)]


def _asked(command: Sequence[str], run: Runner) -> dict[str, SlurmJob] | None:
    """What it says of each job; None where it does not answer."""
    try:
        lines = run(command).splitlines()
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return {job.job_id: job for line in lines if (job := _job(line)) is not None}


def _job(line: str) -> SlurmJob | None:
    job_id, *rest = line.strip().split("|")
    if not rest or not _JOB_ID.fullmatch(job_id):
        return None
    state = (rest[0].split() or [""])[0].rstrip("+")  # "CANCELLED by 1000"
    waits = len(rest) > 1 and state == "PENDING" and rest[1] not in ("", "None")
    return SlurmJob(job_id, state or None, rest[1] if waits else None)
