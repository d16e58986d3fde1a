"""What one run came to, in numbers that can be set beside those of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from mftrun.compare.settings import Settings
from mftrun.runs.reading import Failure, RunFolder, State
from mftrun.runs.records import VALID, Records, number


@dataclass(frozen=True)
class BestLoss:
    """A lowest validation loss, nats per target token, and the step that it was measured at."""

    loss: float
    step: int


@dataclass(frozen=True)
class BestEvaluation:
    """The evaluation whose mean over the tasks is the lowest of a run.

    Attributes:
        mean: Mean of the tasks' losses.
        worst: Highest of them.
        worst_task: Whose.
        spread: Highest minus lowest.
        step: When.
    """

    mean: float
    worst: float
    worst_task: str
    spread: float
    step: int


@dataclass(frozen=True)
class RunResult:
    """One run of a comparison.

    Attributes:
        label: What tells it from the others: its path below their common folder.
        path: Its folder.
        settings: Those of its settings that are not the same in all runs.
        state: What became of it.
        step: Steps done.
        total_steps: Steps of the whole run, where that is known.
        tasks: Task to its lowest validation loss; a task that was never validated is absent.
        best: Its best evaluation, if there was one.
        seconds: Wall-clock seconds of training.
        tokens_per_second: Tokens trained a second.
        notes: Why it failed, and what of it cannot be read.
    """

    label: str
    path: Path
    settings: Settings
    state: State
    step: int
    total_steps: int | None
    tasks: Mapping[str, BestLoss] = field(default_factory=dict)
    best: BestEvaluation | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(run: RunFolder, label: str, settings: Settings) -> RunResult:
        """What a folder tells of its run."""
        return RunResult(
            label=label,
            path=run.path,
            settings=settings,
            state=run.state,
            step=run.step,
            total_steps=run.total_steps,
            tasks=_best_losses(run),
            best=_best_evaluation(run.records),
            seconds=run.seconds,
            tokens_per_second=_speed(run),
            notes=(*_failed(run.failure), *run.faults) if not run.is_finished else tuple(run.faults),
        )

    def loss(self, task: str) -> float | None:
        """The lowest validation loss of a task."""
        found = self.tasks.get(task)
        return None if found is None else found.loss


def _best_losses(run: RunFolder) -> dict[str, BestLoss]:
    lowest: dict[str, BestLoss] = {}
    for step, losses in run.records.rows_of(VALID):
        for task, loss in losses.items():
            if task not in lowest or loss < lowest[task].loss:
                lowest[task] = BestLoss(loss, step)
    return lowest


def _best_evaluation(records: Records) -> BestEvaluation | None:
    evaluations = records.rows_of(VALID)
    if not evaluations:
        return None
    step, losses = min(evaluations, key=lambda one: fmean(one[1].values()))
    worst = max(losses, key=losses.__getitem__)
    spread = losses[worst] - min(losses.values())
    return BestEvaluation(fmean(losses.values()), losses[worst], worst, spread, step)


def _speed(run: RunFolder) -> float | None:
    told = number((run.summary or {}).get("tokens_per_second"))
    measured = [value for _, value in run.records.of("tokens_per_second")]
    return told if told is not None else (median(measured) if measured else None)


def _failed(failure: Failure | None) -> list[str]:
    return [] if failure is None else [failure.message]


def as_json(result: RunResult) -> dict[str, Any]:
    """A result in plain containers."""
    best = result.best
    return {
        "run": result.label,
        "path": str(result.path),
        "state": str(result.state),
        "step": result.step,
        "total_steps": result.total_steps,
        "settings": dict(result.settings),
        "tasks": {task: vars(one) for task, one in result.tasks.items()},
        "best": None if best is None else vars(best),
        "seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
        "notes": list(result.notes),
    }
