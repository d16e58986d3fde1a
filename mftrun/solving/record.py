"""The record of a benchmark: all answers that a model has given, whoever was there to write them down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from mftrun.benchmarks.base import Benchmark, Problem
from mftrun.errors import ConfigError
from mftrun.files import write_atomically
from mftrun.solving.answers import Answered
from mftrun.solving.lines import Lines, joined, read_lines, written
from mftrun.solving.questions import Key, Question
from mftrun.solving.settings import keep_settings


class Record:
    """``RECORDS/TASK.jsonl``: a line for each answer, keyed by problem and sample.

    While answers are generated, each rank adds them to a part of its own, ``TASK.rankN.jsonl``. Whoever comes
    next gathers the parts, however many there are and however they ended; the record itself is only ever
    replaced as a whole.

    Args:
        folder: The folder of records.
        task: The benchmark's name.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self._folder = folder
        self._task = task
        self.file = folder / f"{task}.jsonl"
        self.settings_file = folder / f"{task}.settings.json"

    def part(self, rank: int) -> Path:
        """The file that a rank writes."""
        return self._folder / f"{self._task}.rank{rank}.jsonl"

    def begin(
        self, settings: Mapping[str, Any], asked: Sequence[Question], known: Iterable[str]
    ) -> list[Question]:
        """Gathers what is there.

        Args:
            settings: What the answers depend on besides the questions; see `keep_settings`.
            asked: All questions.
            known: The ids of all problems of the benchmark.

        Returns:
            Those that have no answer yet.

        Raises:
            ConfigError: The record is of other settings, or of other questions.
            DataError: A line of it is no answer.
        """
        found = self._gathered()
        keep_settings(self.settings_file, settings, is_empty=not found)
        _check_questions(self.file, found, asked, frozenset(known))
        self._settle(found)
        return [question for question in asked if question.key not in found]

    def finish(
        self, benchmark: Benchmark, problems: Sequence[Problem], first: int, samples: int
    ) -> list[list[str]]:
        """Puts the answers in order, and what solutions they are beside them.

        Args:
            benchmark: Makes solutions of answers.
            problems: All of the benchmark's, in order.
            first: So many of them have been asked.
            samples: So many answers to each have been asked for; there may be more of an earlier time.

        Returns:
            Of each problem that was asked, and of those behind them that were answered as often at an earlier
            time, the solutions: as many of each, at least those asked for.
        """
        found = _by_problem(self._gathered())
        lines: list[str] = []
        solutions: list[list[str]] = []
        for problem in problems:
            mine = found.get(problem.id, [])
            solved = [benchmark.postprocess(problem, one.answer) for one in mine]
            lines += [written(one, solution=text) for one, text in zip(mine, solved, strict=True)]
            solutions.append(solved)
        assert all(len(one) >= samples for one in solutions[:first]), "every question has been answered"
        self._replace(lines)
        return _even([*solutions[:first], *takewhile(lambda one: len(one) >= samples, solutions[first:])])

    def answers(self) -> Lines:
        """All answers, by their keys.

        Raises:
            DataError: A line of it is no answer.
        """
        return self._gathered()

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._task}.rank*.jsonl"))

    def _gathered(self) -> Lines:
        found: Lines = {}
        for path in (self.file, *self._parts()):
            found.update(read_lines(path))
        return found

    def _settle(self, found: Lines) -> None:
        """Leaves one file without an unfinished line, so that parts begin anew."""
        if self._parts() or not _is_whole(self.file):
            self._replace(map(written, found.values()))

    def _replace(self, lines: Iterable[str]) -> None:
        try:
            write_atomically(self.file, joined(lines))
            for part in self._parts():
                part.unlink()
        except OSError as error:
            raise ConfigError("output", f"cannot write {self.file}: {error.strerror}") from error


def _by_problem(found: Lines) -> dict[str, list[Answered]]:
    """The answers of each problem, in the order of their samples."""
    groups: dict[str, list[Answered]] = {}
    for key in sorted(found, key=lambda key: key.sample):
        groups.setdefault(key.problem, []).append(found[key])
    return groups


def _even(solutions: Sequence[list[str]]) -> list[list[str]]:
    """Of each problem as many as all have."""
    samples = min(map(len, solutions), default=0)
    return [one[:samples] for one in solutions]


def _is_whole(path: Path) -> bool:
    return not path.exists() or path.read_bytes()[-1:] in (b"\n", b"")


def _check_questions(path: Path, found: Lines, asked: Sequence[Question], known: frozenset[str]) -> None:
    """Refuses answers to other problems, and to the same ones when they were asked in other words."""
    other = next((key.problem for key in found if key.problem not in known), None)
    if other is not None:
        raise ConfigError(
            "output",
            f"{path} holds an answer to {other}, which the benchmark does not have; name another folder",
        )
    digests: dict[Key, str] = {question.key: question.digest for question in asked}
    for key, answered in found.items():
        if digests.get(key, answered.digest) != answered.digest:
            raise ConfigError(
                "output",
                f"{path} holds answers to other words: {key.problem} of the benchmark has changed, or how it "
                "is asked; name another folder",
            )
