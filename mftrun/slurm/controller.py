"""What Slurm knows of one job, asked for with patience: a busy controller does not answer at once."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PAUSES = (1.0, 2.0, 4.0, 6.0)
"""Seconds between two attempts; together less than Slurm gives a job that is to leave (KillWait)."""

_ANSWER = 10.0
_UNLIMITED = ("UNLIMITED", "INVALID", "NOT_SET", "Partition_Limit")
_TIME_LIMIT = "TimeLimit"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What Slurm says of a job.

    Attributes:
        state: Its word for it.
        reason: Why it is so; `None` where there is no reason.
        may_return: Whether it may be queued again.
        left: Seconds of its time that are left; None for a job without a limit.
    """

    state: str
    reason: str = "None"
    may_return: bool = True
    left: float | None = None

    @classmethod
    def of(cls, line: str) -> Known:
        """Reads a line of `scontrol --oneliner show job`."""
        words = dict(word.partition("=")[::2] for word in line.split())
        limit, passed = seconds(words.get("TimeLimit", "")), seconds(words.get("RunTime", ""))
        return cls(
            state=words.get("JobState", ""),
            reason=words.get("Reason", "None"),
            may_return=words.get("Requeue") != "0",
            left=None if limit is None or passed is None else limit - passed,
        )

    @property
    def meant_to_run(self) -> bool:
        """Whether nobody has cancelled it: a job that is told to leave gets the same signals in any case."""
        return self.state == "RUNNING" or self.reason == _TIME_LIMIT

    def time_is_over(self, delay: float) -> bool:
        """Whether it must leave for its limit.

        Args:
            delay: Seconds before the limit at which it is told so; Slurm may be a minute early.
        """
        return self.reason == _TIME_LIMIT or (self.left is not None and self.left <= delay + 60.0)


class Controller:
    """Slurm's controller, where it is about one job.

    Args:
        job: Its number.
        pauses: Seconds between two attempts to get an answer.
    """

    def __init__(self, job: str, pauses: Sequence[float] = PAUSES) -> None:
        self.job = job
        self._pauses = pauses

    def known(self) -> Known | str:
        """What it knows of the job, or why it does not say so."""
        answer, problem = self._asked("--oneliner", "show", "job", self.job)
        return problem if problem else Known.of(answer)

    def queue_again(self) -> str:
        """Queues the job again; returns why it was not, else nothing."""
        return self._asked("requeue", self.job)[1]

    def _asked(self, *words: str) -> tuple[str, str]:
        problem = ""
        for pause in (*self._pauses, None):
            answer, problem = _run(["scontrol", *words])
            if not problem:
                break
            _log.warning("scontrol %s: %s", " ".join(words), problem)
            if pause is not None:
                time.sleep(pause)
        return answer, problem


def seconds(text: str) -> float | None:
    """Slurm's way to write a duration, `[DAYS-]HOURS:MINUTES:SECONDS`; None for one without an end.

    Args:
        text: What Slurm has written.
    """
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if text in _UNLIMITED or not all(part.isdecimal() for part in parts):
        return None
    total = 0.0
    for part in parts:
        total = total * 60 + int(part)
    return total + (int(days) * 86400 if days.isdecimal() else 0)


def environment_number(environment: Mapping[str, str]) -> str:
    """The number of the job that this process is part of.

    The last job of an array has, as SLURM_JOB_ID, that of the whole array.
    """
    array = environment.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}" if array else environment["SLURM_JOB_ID"]


def _run(command: Sequence[str]) -> tuple[str, str]:
    """What a command says, and its problem if it has one."""
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=_ANSWER, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return "", str(error)
    if done.returncode == 0 and (done.stdout.strip() or "show" not in command):
        return done.stdout, ""
    return "", done.stderr.strip() or f"exit code {done.returncode} without a word"
