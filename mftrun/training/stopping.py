"""When to stop early: losses, or a score, that have not improved for a while, of the run or of one task."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mftrun.training.progress import Best, Progress

MEAN = "mean"
WORST = "worst"
_LOSS = "valid/loss/"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What one evaluation says.

    Attributes:
        is_best: Whether the watched loss is the lowest so far: of all steps, or since a rollback of those
            that led to the model as it is.
        best_tasks: Tasks still trained whose losses are their lowest so far, in the same sense; empty unless
            tasks are stopped one by one.
        to_freeze: Tasks that are to be frozen now.
        rollback: Step of the checkpoint that model and optimizer are to go back to: the best of the tasks to
            freeze, among the steps that led to the model as it is; the earliest where there are several. None
            goes on with what there is.
    """

    is_best: bool = False
    best_tasks: tuple[str, ...] = ()
    to_freeze: tuple[str, ...] = ()
    rollback: int | None = None


@dataclass(frozen=True)
class EarlyStopping:
    """Watches one validation loss, or that of every task as well; or a score on benchmarks, of all or one.

    Freezing a task by its own loss, going back to its best checkpoint or not, is mSFT (arXiv 2603.21606).

    Args:
        metric: ``mean`` (over tasks), ``worst`` (the highest of all tasks) or the name of a task; or what
            `mftrun.training.scoring.metrics_of` names of benchmarks.
        patience: Evaluations of what is watched without improvement before the run ends; None never ends it.
        min_delta: Improvement that counts, in nats, or as a share of problems.
        per_task: Evaluations without improvement of its own loss before a task is frozen; None freezes none.
        rollback: Whether model and optimizer go back to the best checkpoint of a task that is frozen.
    """

    metric: str = MEAN
    patience: int | None = None
    min_delta: float = 0.0
    per_task: int | None = None
    rollback: bool = False

    def observe(self, progress: Progress, losses: Mapping[str, float]) -> Verdict:
        """Takes the losses of one evaluation into ``progress`` and says what follows.

        Args:
            progress: Its ``overall`` and ``tasks`` are updated. The tasks to freeze are not frozen in it yet.
            losses: Validation loss per task; tasks without validation targets are absent.
        """
        value = self.watched(losses)
        is_best = value is not None and progress.overall.take(value, progress.step, self.min_delta)
        if self.per_task is None:
            return Verdict(is_best)
        best_tasks = tuple(task for task, loss in losses.items() if self._take_task(progress, task, loss))
        trained = [task for task in losses if task not in progress.frozen]
        to_freeze = tuple(task for task in trained if progress.tasks[task].stale >= self.per_task)
        back_to = _rollback_step(progress, to_freeze) if self.rollback else None
        return Verdict(is_best, best_tasks, to_freeze, back_to)

    def observe_scores(self, progress: Progress, scores: Mapping[str, float]) -> bool:
        """Takes scores on benchmarks into ``progress``, and says whether the watched one is the best so far.

        Args:
            progress: Its ``overall`` is updated, with what the score lacks to 1: the lowest is the best.
            scores: By metric; what could not be measured is absent.
        """
        value = self.lacking(scores)
        return value is not None and progress.overall.take(value, progress.step, self.min_delta)

    def lacking(self, scores: Mapping[str, float]) -> float | None:
        """What the watched score lacks to 1, None where no score is watched or it is absent."""
        score = scores.get(self.metric)
        return None if score is None else 1 - score

    def exhausted(self, progress: Progress) -> bool:
        """Whether patience with what is watched has run out."""
        return self.patience is not None and progress.overall.stale >= self.patience

    def watched(self, losses: Mapping[str, float]) -> float | None:
        """The watched value of one evaluation, None where it is absent."""
        return watched_loss(self.metric, losses)

    def _take_task(self, progress: Progress, task: str, loss: float) -> bool:
        """Takes in a task's loss: is it its lowest? What the others learn may help a frozen one, too."""
        best = progress.tasks.setdefault(task, Best())
        if task in progress.frozen:
            return best.lower(loss, progress.step)
        return best.take(loss, progress.step, self.min_delta)


def watched_loss(metric: str, losses: Mapping[str, float]) -> float | None:
    """One number of an evaluation: the mean of its tasks, the worst, or that of one task; None if absent."""
    if metric == MEAN:
        return sum(losses.values()) / len(losses) if losses else None
    if metric == WORST:
        # max() would pass over a NaN, or not, by the order of the tasks.
        return max(losses.values(), key=lambda loss: math.inf if math.isnan(loss) else loss, default=None)
    return losses.get(metric)


def losses_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The validation losses of a record of metrics, by task."""
    return {key.removeprefix(_LOSS): value for key, value in record.items() if key.startswith(_LOSS)}


def _rollback_step(progress: Progress, tasks: Collection[str]) -> int | None:
    # The lowest of all steps may be of steps that an earlier rollback gave up, with a task frozen since.
    lines = [progress.tasks[task].line for task in tasks]
    steps = [line.step for line in lines if line.step is not None]
    earliest = min(steps, default=progress.step)
    if earliest == progress.step:  # gains too small to count can make the latest loss the lowest
        return None
    if all(line.kept_step != earliest for line in lines):
        log.warning("not going back to step %d, the best of %s: it was not saved", earliest, ", ".join(tasks))
        return None
    return earliest
