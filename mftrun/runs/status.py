"""How the jobs of a sweep stand: one line each, from their folders and from Slurm."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from mftrun.runs.finding import common_folder, label_of
from mftrun.runs.reading import RunFolder, State
from mftrun.runs.records import TRAIN, VALID
from mftrun.runs.slurm import (
    Runner,
    SlurmJob,
    live_state,
    run_command,
    slurm_id,
    slurm_jobs,
    state_with,
    submitted_ids,
)
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


def statuses(runs: Sequence[RunFolder], now: datetime.datetime, run: Runner = run_command) -> list[JobStatus]:
    """How the runs stand, and the jobs of their sweeps that Slurm has not started yet.

    Args:
        runs: Their folders.
        now: The time, with its zone.
        run: How Slurm's commands are run.
    """
    ids = [slurm_id(one) for one in runs]
    begun = {one for one in ids if one is not None}
    sweeps = dict.fromkeys(one.path.parent for one in runs)
    ahead = [one for sweep in sweeps for one in submitted_ids(sweep) if one not in begun]
    wanted = [*dict.fromkeys(one for one in ids if one is not None), *ahead]
    jobs = slurm_jobs(wanted, run) if wanted else {}
    folder = common_folder(runs)
    found = [
        _status(one, label_of(one, folder), None if own is None else jobs[own], now)
        for one, own in zip(runs, ids, strict=True)
    ]
    states = ((jobs[one], live_state(jobs[one])) for one in ahead)
    waiting = (JobStatus(f"Slurm job {job.job_id}", state, slurm=job) for job, state in states if state)
    return [*found, *waiting]


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
        steps = f"{one.step}/{'?' if one.total_steps is None else one.total_steps}"
        cells = [steps, text.loss(one.train), text.loss(one.valid), text.duration(one.eta)]
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
    )


def _newest(run: RunFolder) -> dict[str, float]:
    found = {}
    for task in run.latest.tasks:
        values = (run.latest.newest(f"{kind}/{task}") for kind in (VALID, TRAIN))
        found[task] = next((value for value in values if value is not None), None)
    return {task: value for task, value in found.items() if value is not None}
