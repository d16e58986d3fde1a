"""Inside a job of Slurm: lead or follow, leave in time, come back into the same folder."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from mftrun.explain import explanation
from mftrun.launch.errors import NodeLost, Stopped
from mftrun.launch.logs import silence_imports
from mftrun.launch.place import Place, outer_place
from mftrun.launch.signals import SAVE_SIGNAL, SCHEDULED, leave_when_told, no_more_signals
from mftrun.slurm.comeback import Comeback, Submission
from mftrun.slurm.controller import Controller, environment_number
from mftrun.slurm.ending import compare_if_last, run_of
from mftrun.slurm.errors import JobFailed

_LEFT = Stopped(signal.SIGTERM).exit_code


@dataclass(frozen=True)
class Terms:
    """On what terms a job was submitted.

    Attributes:
        sweep: The folder of its sweep.
        delay: Seconds before its limit at which it is told to leave.
        compares: Whether nobody else compares the sweep at its end.
    """

    sweep: Path
    delay: float
    compares: bool


def job_of_slurm(job: Callable[[], JobReturn], terms: Terms) -> JobReturn | None:
    """Run a job in one of its tasks: the first leads, the others start ranks for it.

    Args:
        job: The whole of it.
        terms: On what terms it was submitted.

    Returns:
        What it returned, in the task that leads.

    Raises:
        JobFailed: It failed, or had to leave and cannot come back.
        SystemExit: It left early, and is queued again unless somebody has cancelled it.
    """
    os.environ[SCHEDULED] = "1"
    # submitit's own answer to the signal, which knows what it starts next time.
    submission = Submission(getattr(signal.getsignal(SAVE_SIGNAL), "__self__"))  # noqa: B009
    submission.forget_result()
    leave_when_told(os.environ)
    silence_imports()
    place = outer_place(os.environ)
    if place is not None and place.index > 0:
        _follow(place)
        return None
    number = environment_number(os.environ)
    comeback = Comeback(submission, Controller(number), terms.delay)
    with _compared(terms, number), _queued_again(comeback, terms, number):
        return _lead(place, job)


def _follow(place: Place) -> None:
    from mftrun.launch.follower import follow

    try:
        code = follow(place, sys.argv[1:])
    except Stopped as stop:
        raise SystemExit(stop.exit_code) from None
    if code > 128:
        raise SystemExit(code)  # without a result: the job comes back
    if code:
        raise JobFailed("the first node's task says why")


def _lead(place: Place | None, job: Callable[[], JobReturn]) -> JobReturn:
    from mftrun.launch.team import dismiss_all, lead

    code, text = 1, "the leader has ended"
    try:
        if place is not None:
            lead(place, sys.argv[1:])
        done = job()
        if done.status is JobStatus.FAILED:
            text = _text(done._return_value)
            raise JobFailed(text)
        code = 0
    except (SystemExit, Stopped):
        code, text = _LEFT, ""
        raise
    finally:
        dismiss_all(code, text if code else "")
    return done


def _text(error: BaseException) -> str:
    told = explanation(error, sys.argv[1:])
    return told if told is not None else "".join(traceback.format_exception(error))


@contextmanager
def _queued_again(comeback: Comeback, terms: Terms, number: str) -> Iterator[None]:
    """Inside, Slurm's signals end the job; those that mean so let it come back."""
    try:
        yield
    except (SystemExit, Stopped) as end:
        if isinstance(end, SystemExit) and end.code != _LEFT:
            raise
        no_more_signals()
        try:
            comeback.ask_for(lost=any(isinstance(one, NodeLost) for one in (end, end.__context__)))
        except JobFailed as failed:
            _note(failed, terms.sweep, number)
            raise failed from None
        raise SystemExit(_LEFT) from None


def _note(failed: JobFailed, sweep: Path, number: str) -> None:
    from mftrun.sweeps.outcome import note_failure

    run = run_of(sweep, number)
    if run is not None:
        note_failure(run, failed, str(failed))


@contextmanager
def _compared(terms: Terms, number: str) -> Iterator[None]:
    """A job that has come to an end, however it was, may be the last of its sweep."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) and terms.compares:
            no_more_signals()
            compare_if_last(terms.sweep, number)
        raise
    if terms.compares:
        no_more_signals()
        compare_if_last(terms.sweep, number)
