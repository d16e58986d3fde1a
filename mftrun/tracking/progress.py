"""How far a run is and how each task stands: the state behind the console, and its plain lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from mftrun.tracking import text
from mftrun.tracking.scores import score_parts

_NAME_WIDTH = 20
_WORST_IN_A_LINE = 4


@dataclass
class Progress:
    """Newest value of every metric, and the pace of the run.

    Attributes:
        tasks: Task names, in the order of the configuration.
        total_steps: Steps of the whole run.
        first_step: Step this process started from; the pace counts from here.
        started: Clock at the start, in seconds.
        step: Newest step.
        latest: Newest value of each metric.
        best: Lowest validation loss of each task.
    """

    tasks: Sequence[str]
    total_steps: int
    first_step: int
    started: float
    step: int = field(init=False)
    latest: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    _step_clock: float = field(init=False)

    def __post_init__(self) -> None:
        self.step = self.first_step
        self._step_clock = self.started

    def update(self, step: int, record: Mapping[str, float], now: float) -> None:
        """Takes one record at clock `now`; mappings are replaced whole: a display thread may be reading."""
        if step > self.step:
            self.step, self._step_clock = step, now
        self.latest = {**self.latest, **record}
        valid = {task: record[f"valid/loss/{task}"] for task in self.tasks if f"valid/loss/{task}" in record}
        lowest = {task: min(loss, self.best.get(task, loss)) for task, loss in valid.items()}
        self.best = {**self.best, **lowest}

    def remaining(self, now: float) -> float | None:
        """Seconds to the end at the pace so far; None before the first step."""
        done = self.step - self.first_step
        if done <= 0:
            return None
        pace = (self._step_clock - self.started) / done
        return max(0.0, pace * (self.total_steps - self.step) - (now - self._step_clock))

    def loss_of(self, kind: str, task: str) -> float | None:
        """Newest loss of a task; `kind` is train or valid."""
        return self.latest.get(f"{kind}/loss/{task}")

    def mean_of(self, kind: str) -> float | None:
        """Mean over the tasks of their newest losses."""
        values = [value for task in self.tasks if (value := self.loss_of(kind, task)) is not None]
        return fmean(values) if values else None

    def shown(self, limit: int) -> list[str]:
        """All tasks in their order when they are at most `limit`, else the `limit` worst, worst first."""
        if len(self.tasks) <= limit:
            return list(self.tasks)
        return sorted(self.tasks, key=self._badness, reverse=True)[:limit]

    def _badness(self, task: str) -> float:
        valid, train = self.loss_of("valid", task), self.loss_of("train", task)
        return next((value for value in (valid, train) if value is not None), float("-inf"))


def plain_lines(progress: Progress, record: Mapping[str, float], now: float, max_tasks: int) -> list[str]:
    """One aligned line each for training losses, validation losses and scores, where `record` has them."""
    head = f"step {progress.step:>{len(str(progress.total_steps))}}/{progress.total_steps}"
    lines = [
        " | ".join(part for part in (f"{head} {kind}", *parts) if part)
        for kind, parts in (
            ("train", [*_losses(progress, record, "train", max_tasks), *_pace(progress, record, now)]),
            ("valid", _losses(progress, record, "valid", max_tasks)),
        )
        if any(key.startswith(f"{kind}/") for key in record)
    ]
    scores = score_parts(record)
    return [*lines, " | ".join([f"{head} score", *scores])] if scores else lines


def _losses(progress: Progress, record: Mapping[str, float], kind: str, max_tasks: int) -> list[str]:
    losses = {task: record.get(f"{kind}/loss/{task}") for task in progress.tasks}
    return [f"loss {text.loss(record.get(f'{kind}/loss')):>7}", _per_task(losses, max_tasks)]


def _per_task(losses: Mapping[str, float | None], max_tasks: int) -> str:
    """Every task in its place, `-` for an absent one; of too many the worst that are there, and the mean."""
    short = text.short_names(list(losses), _NAME_WIDTH)
    if len(losses) <= max_tasks:
        return "  ".join(f"{short[task]} {text.loss(value):>7}" for task, value in losses.items())
    present = {task: value for task, value in losses.items() if value is not None}
    worst = sorted(present, key=present.__getitem__, reverse=True)[:_WORST_IN_A_LINE]
    each = "  ".join(f"{short[task]} {present[task]:.4f}" for task in worst)
    mean = text.loss(fmean(present.values()) if present else None)
    return f"mean {mean} of {len(present)}/{len(losses)} tasks, worst: {each}"


def _pace(progress: Progress, record: Mapping[str, float], now: float) -> list[str]:
    rate, speed = record.get("lr"), record.get("tokens_per_second")
    return [
        "" if rate is None else f"lr {rate:.2e}",
        "" if speed is None else f"{text.short_count(speed):>5} tok/s",
        f"eta {text.duration(progress.remaining(now))}",
    ]
