"""job=evaluate: let a model solve benchmarks of code, run its solutions in a sandbox, and count."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mftrun.errors import ConfigError
from mftrun.jobs.generate_benchmark import GenerateBenchmarkJob

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateJob(GenerateBenchmarkJob):
    """Generates as `GenerateBenchmarkJob` does, and scores as `mftrun.jobs.score.ScoreJob` does.

    Args:
        path: See `GenerateBenchmarkJob`, as all but the last.
        k: For which k to estimate pass@k; None takes those of 1, 10 and 100 that there are samples for.

    Raises:
        ConfigError: A value is out of range.
    """

    reads: ClassVar[frozenset[str]] = GenerateBenchmarkJob.reads | {"sandbox"}

    k: list[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None and not (self.k and min(self.k) >= 1 and max(self.k) <= self.num_samples):
            raise ConfigError(
                "job.k",
                f"must hold numbers from 1 to job.num_samples={self.num_samples}, or be null, not {self.k}",
            )

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Solves, scores, and prints the table; what cannot be scored here is said before.

        Args:
            config: The resolved configuration, already checked.
            run_dir: The run's folder.

        Raises:
            MftrunError: Anything that the user can put right.
        """
        from mftrun.scoring.asking import asked_of
        from mftrun.scoring.folder import score_folder
        from mftrun.scoring.generations import find_generations
        from mftrun.scoring.metrics import read_metrics
        from mftrun.scoring.opening import open_scorer

        tasks = self.tasks()
        asked = [asked_of(*task) for task in tasks]
        scorer = open_scorer(config, self._compat(), self.k)
        scorer.look_for_tools(asked)
        folder = self.output_folder(run_dir)
        read_metrics(folder)
        log.info("whatever stops this, the same command with output=%s goes on", folder)
        self.solve(tasks, config, run_dir)
        generations = find_generations(str(self.generations(run_dir)))
        score_folder(scorer, asked, generations, folder, self._told(config))

    def _told(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """How solutions were made, for `metrics.json`."""
        sampling = {**vars(self._sampling(config["seed"])), "stop": list(self.stop)}
        return {"path": self.path, "style": self.style, "compat": self.compat, "sampling": sampling}
