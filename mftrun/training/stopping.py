"""When to stop early: the watched validation loss has not improved for a while."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mftrun.training.progress import Progress

MEAN = "mean"


@dataclass(frozen=True)
class EarlyStopping:
    """Watches one validation loss.

    Args:
        metric: ``mean`` (over tasks) or the name of a task.
        patience: Evaluations without improvement before the run ends; None never ends it.
        min_delta: Improvement that counts, in nats.
    """

    metric: str = MEAN
    patience: int | None = None
    min_delta: float = 0.0

    def observe(self, progress: Progress, losses: Mapping[str, float]) -> bool:
        """Takes the losses of one evaluation into ``progress`` and says whether they are the best so far.

        Args:
            progress: Its ``best_value``, ``best_step`` and ``stale`` are updated.
            losses: Validation loss per task; tasks without validation targets are absent.
        """
        value = self.watched(losses)
        if value is None:
            return False
        if progress.reference is None or value < progress.reference - self.min_delta:
            progress.reference, progress.stale = value, 0
        else:
            progress.stale += 1
        best = progress.best_value is None or value < progress.best_value
        if best:
            progress.best_value, progress.best_step = value, progress.step
        return best

    def exhausted(self, progress: Progress) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and progress.stale >= self.patience

    def watched(self, losses: Mapping[str, float]) -> float | None:
        """The watched value of one evaluation, None where it is absent."""
        if self.metric != MEAN:
            return losses.get(self.metric)
        return sum(losses.values()) / len(losses) if losses else None
