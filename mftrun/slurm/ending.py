"""The end of a sweep that was submitted and left: the job that ends last compares all of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from mftrun.paths import FAILURE, SUMMARY
from mftrun.runs.slurm import JOB_NAME, submitted_ids
from mftrun.slurm.waiting import queued

_log = logging.getLogger(__name__)


def compare_if_last(sweep: Path, job: str) -> None:
    """Compares the runs of a sweep, unless another job of it is still to end.

    Args:
        sweep: Its folder.
        job: The number of the job that has ended, and asks.
    """
    alive = queued({job, *submitted_ids(sweep)})
    if alive is None:
        _log.warning("Slurm does not say whether this job is the last of its sweep; job=compare compares")
        return
    # Of two that end at once, each is in the queue for the other, and has said what it came to.
    others = alive.keys() - {job}
    if others and others - set(_ended(sweep)):
        return
    from mftrun.compare.write import compare_sweep
    from mftrun.sweeps.sweep import Tally

    if any(run.is_training for run in Tally.of(sweep).finished):
        compare_sweep(sweep)


def run_of(sweep: Path, job: str) -> Path | None:
    """The folder of the run that a job works on; None for one that has not begun.

    Args:
        sweep: The folder of its sweep.
        job: Its number.
    """
    return next((note.parent for note in sweep.glob(f"*/{JOB_NAME}") if _job_in(note) == job), None)


def _ended(sweep: Path) -> Iterator[str]:
    """Jobs that have said what they came to."""
    for note in sweep.glob(f"*/{JOB_NAME}"):
        if any((note.parent / name).exists() for name in (SUMMARY, FAILURE)):
            yield _job_in(note)


def _job_in(note: Path) -> str:
    return note.read_text(encoding="utf-8").strip()
