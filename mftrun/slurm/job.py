"""Inside a job of Slurm: lead or follow, leave in time, come back into the same folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from hydra.core.utils import JobReturn, JobStatus

from mftrun.explain import explanation
from mftrun.launch.errors import Stopped
from mftrun.launch.logs import silence_imports
from mftrun.launch.place import Place, outer_place
from mftrun.launch.signals import SAVE_SIGNAL, SCHEDULED
from mftrun.slurm.errors import JobFailed

_LEFT = Stopped(signal.SIGTERM).exit_code


def job_of_slurm(job: Callable[[], JobReturn]) -> JobReturn | None:
    """Run a job in one of its tasks: the first leads, the others start ranks for it.

    Args:
        job: The whole of it.

    Returns:
        What it returned, in the task that leads.

    Raises:
        JobFailed: It failed.
        SystemExit: It left early, and is queued again unless somebody has cancelled it.
    """
    os.environ[SCHEDULED] = "1"
    silence_imports()
    place = outer_place(os.environ)
    if place is not None and place.index > 0:
        _follow(place)
        return None
    with _queued_again():
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
def _queued_again() -> Iterator[None]:
    """Inside, Slurm's signals end the job; those that mean so let it come back."""
    queue_again: Any = signal.getsignal(SAVE_SIGNAL)
    for signum in (SAVE_SIGNAL, signal.SIGTERM):
        signal.signal(signum, _leave)
    try:
        yield
    except (SystemExit, Stopped) as end:
        if isinstance(end, SystemExit) and end.code != _LEFT:
            raise
        if _comes_back():
            queue_again(SAVE_SIGNAL, None)  # ends this process, or says that it was once too often
        raise SystemExit(_LEFT) from None


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    """While there are no ranks yet that could save anything."""
    # What is ignored from now on tells `ScheduledSignals`, should a library catch this.
    for one in (SAVE_SIGNAL, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    raise SystemExit(_LEFT)


def _comes_back() -> bool:
    """Whether the job is still meant to run: Slurm's signals are the same for one that somebody cancels."""
    command = ["scontrol", "--oneliner", "show", "job", _own_number(os.environ)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    known = dict(word.partition("=")[::2] for word in done.stdout.split())
    return known.get("JobState") == "RUNNING" or known.get("Reason") == "TimeLimit"


def _own_number(environment: Mapping[str, str]) -> str:
    """The job's number; the last of an array has, as SLURM_JOB_ID, that of the whole array."""
    array = environment.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}" if array else environment["SLURM_JOB_ID"]
