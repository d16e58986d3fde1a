"""How the jobs of a sweep stand: one line each, from their folders and from Slurm."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from mftrun.runs.finding import Found, label_of
from mftrun.runs.reading import RunFolder, State
from mftrun.runs.records import TRAIN, VALID
from mftrun.runs.slurm import Runner, SlurmJob, live_state, run_command, slurm_id, slurm_jobs, state_with
from mftrun.runs.submitted import Submitted, not_begun, number_of
from mftrun.tracking import text

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = MappingProxyType(
    {
        State.FAILED: "bold red",
        State.RUNNING: "cyan",
        State.WAITING: "yellow",
        State.STOPPED: "yellow",
        State.FINISHED: "green",
        State.PRUNED: "green",
    }
)


_ENDED_BY_OTHERS = ("CANCELLED", "PREEMPTED", "REVOKED")


@dataclass(frozen=True)
class JobStatus:
    """One job.

    Attributes:
        label: Its folder, below what all have in common; the Slurm id of one without a folder.
        state: What became of it.
        step: Steps done.
        total_steps: Steps of the whole run, where that is known.
        train: Newest training loss.
        valid: Newest mean validation loss.
        eta: Seconds to the end, of one that runs.
        slurm: Its Slurm job, if it has one.
        notes: Why it failed, and what of it cannot be read.
        losses: Task to its newest validation loss, or training loss where it has no other.
        is_training: Whether it has steps and losses; a sweep may be of other jobs.
    """

    label: str
    state: State
    step: int = 0
    total_steps: int | None = None
    train: float | None = None
    valid: float | None = None
    eta: float | None = None
    slurm: SlurmJob | None = None
    notes: tuple[str, ...] = ()
    losses: tuple[tuple[str, float], ...] = ()
    is_training: bool = True


def statuses(found: Found, now: datetime.datetime, run: Runner = run_command) -> list[JobStatus]:
    """How the runs stand, and below them the jobs that Slurm was given and that have no folder yet.

    Args:
        found: The runs, and the sweeps that submitted jobs.
        now: The time, with its zone.
        run: How Slurm's commands are run.
    """
    sweeps = dict.fromkeys([*found.sweeps, *(one.path.parent for one in found.runs)])
    ahead = [one for sweep in sweeps for one in not_begun(sweep)]
    ids = [*map(slurm_id, found.runs), *(one.job_id for one in ahead)]
    wanted = list(dict.fromkeys(one for one in ids if one is not None))
    jobs = slurm_jobs(wanted, run) if wanted else {}
    again: dict[tuple[Path, int | None], Submitted]
    again = {(one.sweep, one.number): one for one in ahead if one.number is not None}
    stand = []
    for one in found.runs:
        stands = _status(one, label_of(one, found.folder), jobs.get(slurm_id(one) or ""), now)
        later = again.get((one.path.parent, number_of(one.path)))
        stand.append(stands if later is None else _again(stands, later, jobs[later.job_id]))
    return [*stand, *_without_runs(found, ahead, jobs)]


def table(found: Sequence[JobStatus]) -> Table:
    """The table of jobs, for a rich console."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    heads = ["job", "state", "step", "train", "valid", "left"]
    with_slurm = any(one.slurm for one in found)
    for number, head in enumerate([*heads, *(["slurm"] if with_slurm else [])]):
        made.add_column(head, justify="left" if number < 2 else "right", overflow="fold")
    for one in found:
        cells = [_steps(one), text.loss(one.train), text.loss(one.valid), text.duration(one.eta)]
        slurm = [str(one.slurm or "-")] if with_slurm else []
        state = Text(str(one.state), style=_STYLES.get(one.state, ""))
        made.add_row(Text(one.label), state, *map(Text, [*cells, *slurm]))
    return made


def lines(found: Sequence[JobStatus], max_tasks: int = 8) -> list[str]:
    """What belongs under the table: how many of each state, losses by task, and last errors."""
    counts = ((state, sum(one.state is state for one in found)) for state in State)
    total = ", ".join(f"{number} {state}" for state, number in counts if number)
    tasks = [
        f"{one.label}: {_by_task(one, max_tasks)}" for one in found if one.losses and one.eta is not None
    ]
    return [total, *tasks, *(f"{one.label}: {note}" for one in found for note in one.notes)]


def _steps(one: JobStatus) -> str:
    if not one.is_training:
        return "-"
    return f"{one.step}/{'?' if one.total_steps is None else one.total_steps}"


def _by_task(one: JobStatus, max_tasks: int) -> str:
    worst = sorted(one.losses, key=lambda pair: -pair[1])[:max_tasks]
    shown = worst if len(one.losses) > max_tasks else one.losses
    more = f", and {len(one.losses) - max_tasks} lower" if len(one.losses) > max_tasks else ""
    return "  ".join(f"{task} {loss:.4f}" for task, loss in shown) + more


def _status(run: RunFolder, label: str, job: SlurmJob | None, now: datetime.datetime) -> JobStatus:
    state = state_with(run, job)
    failed = run.failure if state is State.FAILED else None
    return JobStatus(
        label=label,
        state=state,
        step=run.step,
        total_steps=run.total_steps,
        train=run.latest.newest(TRAIN),
        valid=run.latest.newest(VALID),
        eta=run.eta(now) if state is State.RUNNING else None,
        slurm=job,
        notes=(*([failed.message] if failed else []), *run.faults),
        losses=tuple(_newest(run).items()),
        is_training=run.is_training,
    )


def _again(stands: JobStatus, job: Submitted, slurm: SlurmJob) -> JobStatus:
    """How a run stands that was submitted again since it last ran."""
    if stands.state.is_finished or stands.state is State.RUNNING:
        return stands
    state, notes = _before_begin(job, slurm)
    return replace(
        stands,
        state=state if live_state(slurm) else stands.state,
        slurm=slurm,
        notes=(*notes, *stands.notes),
    )


def _without_runs(found: Found, ahead: Sequence[Submitted], jobs: Mapping[str, SlurmJob]) -> list[JobStatus]:
    there = {(one.path.parent, number_of(one.path)) for one in found.runs}
    return [
        _without_run(one, jobs[one.job_id], found.folder)
        for one in ahead
        if one.sweep in found.sweeps and (one.number is None or (one.sweep, one.number) not in there)
    ]


def _without_run(job: Submitted, slurm: SlurmJob, folder: Path) -> JobStatus:
    label = (job.sweep.relative_to(folder) / f"Slurm job {job.job_id}").as_posix()
    state, notes = _before_begin(job, slurm)
    return JobStatus(label, state, slurm=slurm, notes=notes)


def _before_begin(job: Submitted, slurm: SlurmJob) -> tuple[State, tuple[str, ...]]:
    """What became of a job that no run's folder is of."""
    live = live_state(slurm)
    if live is not None:
        return live, ()
    log = f"; its log: {job.log}{_last_line(job.log)}" if job.log else ""
    if slurm.state in _ENDED_BY_OTHERS:
        return State.STOPPED, (f"Slurm job {job.job_id} was ended before its run began{log}",)
    if slurm.state is None and not slurm.is_gone:
        return State.NOT_STARTED, (f"Slurm does not say how job {job.job_id} stands{log}",)
    return State.FAILED, (f"Slurm job {job.job_id} ended before its run began{log}",)


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")


def _newest(run: RunFolder) -> dict[str, float]:
    found = {}
    for task in run.latest.tasks:
        values = (run.latest.newest(f"{kind}/{task}") for kind in (VALID, TRAIN))
        found[task] = next((value for value in values if value is not None), None)
    return {task: value for task, value in found.items() if value is not None}
