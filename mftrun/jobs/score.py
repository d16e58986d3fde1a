"""job=score: run the solutions of benchmarks in a sandbox, and count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mftrun.errors import ConfigError
from mftrun.jobs.footprints import leave_no_folder

if TYPE_CHECKING:
    from mftrun.scoring.generations import Generations


@dataclass(frozen=True)
class ScoreJob:
    """Scores solutions that are there.

    Args:
        generations: Folder of solutions, or the one it lies in.
        benchmarks: Which to score; None takes all that the folder holds.
        benchmark_data: Folder of the benchmarks, ``hub``, or ``hub:OWNER/NAME``.
        output: Folder for verdicts and ``metrics.json``; None takes the one that the solutions' lies in.
        compat: ``strict``, or ``upstream`` to repeat the faults of the first evaluation of these benchmarks.
        problems: Score the first so many problems of each benchmark; None scores all.
        k: For which k to estimate pass@k; None takes those of 1, 10 and 100 that there are samples for.
        own_benchmarks: Benchmarks of the user, by name.
        benchmark_revision: Branch, tag or commit of the benchmarks on the hub.

    Raises:
        ConfigError: A number is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"sandbox"})

    generations: str
    benchmarks: list[str] | str | None = None
    benchmark_data: str | None = None
    output: str | None = None
    compat: Literal["strict", "upstream"] = "strict"
    problems: int | None = None
    k: list[int] | None = None
    own_benchmarks: dict[str, Any] = field(default_factory=dict)
    benchmark_revision: str | None = None

    def __post_init__(self) -> None:
        if self.problems is not None and self.problems < 1:
            raise ConfigError("job.problems", f"must be 1 or more, or null, not {self.problems}")
        if self.k is not None and (not self.k or min(self.k) < 1):
            raise ConfigError("job.k", f"must hold numbers from 1, or be null, not {self.k}")

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Scores, and prints the table.

        Args:
            config: The resolved configuration, already checked.
            run_dir: The job's own folder; it is removed again where nothing else is in it.

        Raises:
            MftrunError: Anything that the user can put right.
        """
        from mftrun.benchmarks.compat import COMPATS
        from mftrun.scoring.asking import ask
        from mftrun.scoring.folder import score_folder
        from mftrun.scoring.generations import find_generations
        from mftrun.scoring.opening import open_scorer

        compat = COMPATS[self.compat]
        generations = find_generations(self.generations)
        asked = ask(
            self._names(generations),
            self.benchmark_data,
            compat,
            self.problems,
            own=self.own_benchmarks,
            revision=self.benchmark_revision,
        )
        scorer = open_scorer(config, compat, self.k)
        scorer.look_for_tools(asked)
        folder = self._output(generations.folder)
        score_folder(scorer, asked, generations, folder, {"compat": self.compat})
        leave_no_folder(run_dir)

    def _names(self, generations: Generations) -> list[str]:
        if self.benchmarks is None:
            return list(generations.files)
        return [self.benchmarks] if isinstance(self.benchmarks, str) else self.benchmarks

    def _output(self, solutions: Path) -> Path:
        return solutions.parent if self.output is None else Path(self.output).expanduser().absolute()
