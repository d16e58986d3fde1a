"""Benchmarks solved by a model: the questions that no record answers yet, and the solutions of all."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mftrun.benchmarks.base import Benchmark, Problem
from mftrun.launch.errors import Stopped
from mftrun.lock import owned
from mftrun.solving.answers import OVERLONG, check_room
from mftrun.solving.candidate import Candidate
from mftrun.solving.questions import Question, questions
from mftrun.solving.record import Record
from mftrun.solving.settings import sampling_values
from mftrun.solving.sharing import Left, Manner, count_ranks, deal, run_works

_log = logging.getLogger(__name__)

RECORDS = "records"


class Task(NamedTuple):
    """A benchmark and those of its problems that are to be solved.

    Attributes:
        benchmark: The benchmark.
        problems: All of its problems.
        first: So many of them are solved, from the first on; None solves all.
    """

    benchmark: Benchmark
    problems: Sequence[Problem]
    first: int | None = None

    @property
    def asked(self) -> Sequence[Problem]:
        """The problems that are to be solved."""
        return self.problems[: self.first]


Solutions = Mapping[str, Sequence[Sequence[str]]]
"""By the name of the benchmark, of each problem and sample one."""


@dataclass(frozen=True)
class Solver:
    """Solves benchmarks with a model, and keeps a record that a later one goes on with.

    Args:
        candidate: The model.
        manner: How questions are answered.
        output: Folder; the records lie in it.
        num_processes: Ranks that share the work; None takes one for each GPU.
        log_file: The run's one log, for the ranks.
    """

    candidate: Candidate
    manner: Manner
    output: Path
    num_processes: int | None = None
    log_file: Path | None = None

    def solve(self, tasks: Sequence[Task]) -> Solutions:
        """Answers what has no answer yet, and gives the solutions of all.

        Args:
            tasks: What is to be solved.

        Raises:
            ConfigError: The records hold answers of other settings, or another process writes there.
            MftrunError: Anything else that the user can put right.
        """
        folder = self.output / RECORDS
        samples = self.manner.sampling.num_samples
        records = [Record(folder, task.benchmark.name) for task in tasks]
        with owned(folder, "output"), _way_on(folder):
            self._answer(self._left(tasks, records))
            _tell(tasks, records, samples)
            return {
                task.benchmark.name: record.finish(task.benchmark, task.problems, len(task.asked), samples)
                for task, record in zip(tasks, records, strict=True)
            }

    def _left(self, tasks: Sequence[Task], records: Sequence[Record]) -> list[Left]:
        """What of each task has no answer."""
        model, sampling = self.candidate.identity(), self.manner.sampling
        found = []
        for task, record in zip(tasks, records, strict=True):
            stop = task.benchmark.stop
            asked = questions(self.candidate.bound, task.benchmark, task.asked, sampling.num_samples)
            settings = {"model": model, "sampling": sampling_values(sampling, stop)}
            left = record.begin(settings, asked, [problem.id for problem in task.problems])
            self._check_rooms(record, asked)
            if len(left) < len(asked):
                there = _shown(len(asked) - len(left), len(asked))
                _log.info("%s: %s of %s answers are there already", task.benchmark.name, *there)
            found.append(Left(record, stop, left))
        return found

    def _check_rooms(self, record: Record, asked: Sequence[Question]) -> None:
        """What the record leaves without an answer for want of room is judged as if it were asked now."""
        found = record.answers()
        for question in asked:
            if question.key in found and found[question.key].finish == OVERLONG:
                check_room(question, self.manner.on_overlong)

    def _answer(self, left: Sequence[Left]) -> None:
        count = sum(len(one.asked) for one in left)
        if not count:
            return
        ranks = count_ranks(self.candidate.backend, self.num_processes, count)
        start = time.monotonic()
        run_works(self.candidate, self.manner, deal(left, ranks), self.log_file)
        _log.info("%s questions answered in %.1f s", f"{count:,}", time.monotonic() - start)


@contextmanager
def _way_on(folder: Path) -> Iterator[None]:
    """Tells whoever interrupts it that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(_kept(folder))
        raise
    except Stopped as stop:
        if stop.signum != signal.SIGINT:
            _log.warning(_kept(folder))
            raise
        told = KeyboardInterrupt()
        told.add_note(_kept(folder))
        raise told from stop


def _kept(folder: Path) -> str:
    return f"answers so far are in {folder}: the same command with output={folder.parent} goes on"


def _tell(tasks: Sequence[Task], records: Sequence[Record], samples: int) -> None:
    """What of the answers may be due to other things than what the model knows."""
    for task, record in zip(tasks, records, strict=True):
        asked = {problem.id for problem in task.asked}
        found = [one for one in record.answers().values() if one.key.problem in asked]
        found = [one for one in found if one.key.sample < samples]
        told = {
            "were cut at their longest length": sum(one.finish == "length" for one in found),
            "are empty": sum(not one.answer and one.finish != OVERLONG for one in found),
            "are missing, as their questions leave no room for any": sum(
                one.finish == OVERLONG for one in found
            ),
        }
        for what, count in told.items():
            if count:
                _log.warning("%s: %s of %s answers %s", task.benchmark.name, *_shown(count, len(found)), what)


def _shown(*counts: int) -> list[str]:
    return [f"{count:,}" for count in counts]
