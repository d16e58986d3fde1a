"""Benchmarks, answered by the model in training and judged while the ranks wait."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from mftrun.errors import MftrunError
from mftrun.examining.answering import LiveModel
from mftrun.examining.aside import done_aside
from mftrun.languages.base import Judged
from mftrun.scoring.attempts import Attempt, attempts
from mftrun.scoring.judging import judged_together
from mftrun.scoring.score import Score
from mftrun.scoring.scorer import VERDICTS, Asked, Scorer
from mftrun.scoring.verdicts_file import VerdictsFile
from mftrun.solving.generations import generations_file, write_generations
from mftrun.solving.questions import Key, questions

if TYPE_CHECKING:
    from mftrun.launch import StopRequest

log = logging.getLogger(__name__)

Solutions = Sequence[Sequence[str]]


class _GivenUpError(Exception):
    """Nobody waits for the verdicts any more."""


@dataclass(frozen=True)
class LiveExaminer:
    """Scores the model in training; see `mftrun.training.scoring.Examiner`.

    Args:
        model: The model.
        asked: The benchmarks.
        scorer: Judges their programs; None on all ranks but the first.
        folder: Gets a folder for each step, with solutions and verdicts.
        name: What the files of solutions call the model.
    """

    model: LiveModel
    asked: Sequence[Asked]
    scorer: Scorer | None
    folder: Path
    name: str

    def examine(self, step: int, stop: StopRequest) -> dict[str, float] | None:
        """See `Examiner.examine`."""
        solutions: dict[str, Solutions] = {}
        for one in self.asked:
            found = self._solved(one, stop)
            if found is None:
                return None
            solutions[one.benchmark.name] = found
        folder = self.folder / f"step-{step:08d}"
        return done_aside(partial(self._judged, solutions, folder), self.model.engine.ranks, stop)

    def _solved(self, asked: Asked, stop: StopRequest) -> Solutions | None:
        benchmark = asked.benchmark
        posed = questions(self.model.bound, benchmark, asked.problems, 1)
        found = self.model.answers(benchmark.stop, posed, stop)
        if found is None:
            return None
        return [[benchmark.postprocess(one, found[Key(one.id, 0)])] for one in asked.problems]

    def _judged(self, solutions: Mapping[str, Solutions], folder: Path, given_up: Event) -> dict[str, float]:
        scores = {}
        for one in self.asked:
            score = self._score(one, solutions[one.benchmark.name], folder, given_up)
            if score is not None:
                scores[one.benchmark.name] = score
        return scores

    def _score(self, asked: Asked, solutions: Solutions, folder: Path, given_up: Event) -> float | None:
        """The share that passes; None where something else than the solutions failed, which is told."""
        name = asked.benchmark.name
        try:
            write_generations(generations_file(folder, self.name, name), solutions)
            score = self._verdicts(asked, solutions, folder, given_up)
        except (MftrunError, OSError) as error:  # a full disk, say: no reason to end a training
            log.warning("%s has no score at this step: %s", name, error)
            return None
        estimate = score.pass_at[1]
        if estimate is None:
            log.warning("%s has no score at this step, as the sandbox failed: %s", name, score.trouble)
        return None if estimate is None else estimate.value

    def _verdicts(self, asked: Asked, solutions: Solutions, folder: Path, given_up: Event) -> Score:
        scorer = self.scorer
        assert scorer is not None, "the first rank has one"
        language = scorer.languages[asked.benchmark.language]
        programs = attempts(asked.benchmark, asked.problems, solutions, language, scorer.judged_by)
        found: dict[str, Judged] = {}
        for equal, judged in judged_together(programs, scorer.judge(language), scorer.workers):
            if given_up.is_set():
                raise _GivenUpError
            found[equal[0].key] = judged
        verdicts = [found[one.key] for one in programs]
        _keep(folder / VERDICTS / f"{asked.benchmark.name}.jsonl", programs, verdicts)
        return Score.of(asked.extent, verdicts, 1, [1])


def _keep(path: Path, programs: Sequence[Attempt], verdicts: Sequence[Judged]) -> None:
    with VerdictsFile(path) as file:
        file.finish(programs, verdicts)
