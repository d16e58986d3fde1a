"""A folder of solutions, scored: the table, ``metrics.json``, and what could not be judged."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mftrun
from mftrun.benchmarks.registry import SETS
from mftrun.errors import ConfigError
from mftrun.languages.base import Verdict
from mftrun.lock import owned
from mftrun.scoring.attempts import fitting
from mftrun.scoring.generations import Generations
from mftrun.scoring.metrics import METRICS, read_metrics, write_metrics
from mftrun.scoring.score import Score, Skipped
from mftrun.scoring.scorer import VERDICTS, Asked, Scorer
from mftrun.scoring.table import score_table

log = logging.getLogger(__name__)


def score_folder(
    scorer: Scorer,
    asked: Sequence[Asked],
    generations: Generations,
    folder: Path,
    settings: Mapping[str, Any],
) -> list[Score | Skipped]:
    """Scores the solutions in a folder, prints the table and writes ``metrics.json``.

    Args:
        scorer: Scores a benchmark.
        asked: The benchmarks.
        generations: Their solutions.
        folder: Gets verdicts and metrics.
        settings: Plain values: how the solutions were made and scored, for ``metrics.json``.

    Returns:
        The scores.

    Raises:
        ConfigError: The sandbox failed at programs; all else has been done. Or there are too few samples, or
            ``metrics.json`` is somebody else's; nothing has been run.
        DataError: A file of solutions is not as it must be; nothing has been run.
    """
    solutions = [_solutions(one, generations) for one in asked]
    for one, its in zip(asked, solutions, strict=True):
        if scorer.skip(one) is None:
            scorer.check_tries(len(its[0]))
    read_metrics(folder)
    with owned(folder / VERDICTS, "output"), _way_on(folder):
        scores = [scorer.score(one, its, folder) for one, its in zip(asked, solutions, strict=True)]
    average = write_metrics(folder, scores, SETS["competition"], {**_config(generations, scorer), **settings})
    print(score_table(scores, average))
    log.info("scores are in %s, verdicts with their logs in %s", folder / METRICS, folder / VERDICTS)
    _refuse_sandbox_errors(scores)
    return scores


def _solutions(asked: Asked, generations: Generations) -> Sequence[Sequence[str]]:
    found = generations.read(asked.benchmark.name)
    return fitting(generations.files[asked.benchmark.name], asked.problems, asked.here, found)


def _config(generations: Generations, scorer: Scorer) -> dict[str, Any]:
    return {
        "model": generations.model,
        "generations": str(generations.folder),
        "version": mftrun.__version__,
        "judged_by": dict(scorer.judged_by),
    }


@contextmanager
def _way_on(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"verdicts so far are in {folder}: the same command with output={folder} goes on")
        raise


def _refuse_sandbox_errors(scores: Sequence[Score | Skipped]) -> None:
    failed = [one for one in scores if isinstance(one, Score) and one.counts.get(Verdict.SANDBOX_ERROR)]
    if failed:
        names = ", ".join(one.extent.task for one in failed)
        raise ConfigError(
            "sandbox",
            f"it failed at programs of {names}: {failed[0].trouble}. They have no score; the same command "
            "tries those programs again",
        )
