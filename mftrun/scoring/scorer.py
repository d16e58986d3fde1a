"""From solutions to scores: programs, their verdicts as they come, pass@k."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mftrun.benchmarks.base import Benchmark, Problem
from mftrun.data.progress import progress
from mftrun.errors import ConfigError, MftrunError
from mftrun.languages.base import Judged, Language, Missing, Program, Verdict
from mftrun.scoring.attempts import Attempt, attempts
from mftrun.scoring.judging import Judge, judged_together
from mftrun.scoring.pass_at_k import tries
from mftrun.scoring.score import Extent, Score, Skipped
from mftrun.scoring.verdicts_file import VerdictsFile

log = logging.getLogger(__name__)

JudgeOf = Callable[[Language], Judge]
_SMALLEST_SECONDS = 60.0
VERDICTS = "verdicts"
"""The folder of verdicts, beside the solutions."""


@dataclass(frozen=True)
class Asked:
    """A benchmark that is to be scored.

    Attributes:
        benchmark: The benchmark.
        problems: Those of its problems that count.
        of: How many were published.
        here: How many there are here, where only the first count; None where all do.
    """

    benchmark: Benchmark
    problems: Sequence[Problem]
    of: int
    here: int | None = None

    @property
    def extent(self) -> Extent:
        """What of it is scored."""
        return Extent(self.benchmark.name, len(self.problems), self.of)


@dataclass(frozen=True)
class Scorer:
    """Scores solutions on this machine.

    Attributes:
        languages: The languages, by name.
        judge: Judges a program of a language.
        workers: Programs at a time.
        judged_by: Plain values that verdicts depend on besides program and language.
        k: For which k to estimate pass@k; None takes what there are samples for.
    """

    languages: Mapping[str, Language]
    judge: JudgeOf
    workers: int
    judged_by: Mapping[str, Any]
    k: Sequence[int] | None = None
    _unready: dict[str, str | None] = field(default_factory=dict, init=False, compare=False, repr=False)

    def look_for_tools(self, asked: Sequence[Asked]) -> None:
        """Makes the languages ready, and says which benchmarks will be skipped.

        Raises:
            ConfigError: That is all of them.
        """
        skips = [skip for skip in map(self.skip, asked) if skip is not None]
        told = [f"{skip.extent.task}: {skip.told()}" for skip in skips]
        if len(told) == len(asked):
            raise ConfigError("benchmarks", "none can be scored here; " + "; ".join(told))
        for line in told:
            log.warning("will be skipped (solutions can be scored where that is there), %s", line)

    def check_tries(self, samples: int) -> None:
        """Looks whether there are samples enough for `k`.

        Raises:
            ConfigError: There are not.
        """
        tries(self.k, samples)

    def skip(self, asked: Asked) -> Skipped | None:
        """Why a benchmark cannot be scored here; None where it can, as all is ready for it."""
        missing = self.missing(asked)
        if missing is not None:
            return Skipped(asked.extent, f"{missing.what} is missing", missing.install)
        reason = self._reason(self.languages[asked.benchmark.language])
        return None if reason is None else Skipped(asked.extent, reason)

    def _reason(self, language: Language) -> str | None:
        """Why a language could not be made ready; that is tried once."""
        if language.name not in self._unready:
            self._unready[language.name] = self._tried(language)
        return self._unready[language.name]

    def _tried(self, language: Language) -> str | None:
        """Why no program of a language could pass; None where one did."""
        try:
            language.prepare()
        except MftrunError as error:
            return f"{language.name} cannot be made ready: {error}"
        judged = self.judge(language)(Program(language.name, language.smallest, _SMALLEST_SECONDS))
        if judged.verdict is Verdict.PASSED:
            return None
        ended = f"a program that does nothing ends as {judged.verdict.value}: {judged.log}"
        return f"{language.name} does not work here: {ended}"

    def missing(self, asked: Asked) -> Missing | None:
        """The tool without which a benchmark cannot be scored here, if there is one."""
        return self.languages[asked.benchmark.language].missing()

    def score(self, asked: Asked, solutions: Sequence[Sequence[str]], folder: Path) -> Score | Skipped:
        """Scores a benchmark. Verdicts that `folder` holds already are kept.

        Args:
            asked: The benchmark.
            solutions: For each of its problems, a solution of each sample.
            folder: Gets ``verdicts/TASK.jsonl``.

        Raises:
            ConfigError: More tries are asked for than there are samples, or the file cannot be used.
        """
        skipped = self.skip(asked)
        if skipped is not None:
            return skipped
        samples = len(solutions[0])
        wanted = tries(self.k, samples)
        language = self.languages[asked.benchmark.language]
        programs = attempts(asked.benchmark, asked.problems, solutions, language, self.judged_by)
        with VerdictsFile(folder / VERDICTS / f"{asked.benchmark.name}.jsonl") as file:
            verdicts = self._verdicts(asked.benchmark.name, programs, file, self.judge(language))
        return Score.of(asked.extent, verdicts, samples, wanted)

    def _verdicts(
        self, name: str, programs: Sequence[Attempt], file: VerdictsFile, judge: Judge
    ) -> list[Judged]:
        known = file.known()
        left = [one for one in programs if one.key not in known]
        if len(left) < len(programs):
            log.info("%s: %s verdicts are there already", name, f"{len(programs) - len(left):,}")
        if left:
            with progress(f"running {len(left):,} programs of {name}", len(left)) as advance:
                for equal, judged in judged_together(left, judge, self.workers):
                    file.add(equal, judged)
                    known[equal[0].key] = judged
                    advance(len(equal))
        verdicts = [known[one.key] for one in programs]
        file.finish(programs, verdicts)
        return verdicts
