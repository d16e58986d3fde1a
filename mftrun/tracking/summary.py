"""What a run came to: per task and in total, as JSON and as a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mftrun.files import write_atomically
from mftrun.tracking import text
from mftrun.tracking.scores import ScoreSummary, score_lines, score_summaries

if TYPE_CHECKING:
    from rich.table import Table

SUMMARY_NAME = "summary.json"
_NAME_WIDTHS = (12, 24)
_GAP = 2


@dataclass(frozen=True)
class _Column:
    header: tuple[str, str]
    cell: Callable[[TaskSummary], str]
    keep: int
    """A narrow terminal loses the columns of the lowest numbers."""


_COLUMNS = (
    _Column(("", "samples"), lambda task: text.count(task.samples), 5),
    _Column(("valid", "samples"), lambda task: text.count(task.valid_samples), 1),
    _Column(("target", "tokens"), lambda task: text.count(task.target_tokens), 4),
    _Column(("train", "first"), lambda task: text.loss(task.train_first), 6),
    _Column(("train", "last"), lambda task: text.loss(task.train_last), 7),
    _Column(("valid", "last"), lambda task: text.loss(task.valid_last), 8),
    _Column(("valid", "best"), lambda task: text.loss(task.valid_best), 3),
    _Column(("best at", "step"), lambda task: text.step(task.valid_best_step), 2),
)
_FROZEN = _Column(("frozen", "at"), lambda task: text.step(task.frozen_step), 4)


@dataclass(frozen=True)
class TaskCounts:
    """What the data of one task holds.

    Attributes:
        samples: Training samples.
        valid_samples: Validation samples.
        target_tokens: Trained tokens of all training samples, counted once.
    """

    samples: int
    valid_samples: int
    target_tokens: int


@dataclass(frozen=True)
class TaskSummary:
    """Results of one task: its counts, and its losses (nll per target token); None where never measured.

    `frozen_step` is the step at which per-task stopping froze it; None for a task that was never frozen.
    """

    samples: int
    valid_samples: int
    target_tokens: int
    train_first: float | None = None
    train_last: float | None = None
    valid_first: float | None = None
    valid_last: float | None = None
    valid_best: float | None = None
    valid_best_step: int | None = None
    frozen_step: int | None = None


@dataclass(frozen=True)
class Summary:
    """Results of a run.

    Attributes:
        tasks: Task name to its results, in the order of the configuration.
        steps: Optimizer steps taken, including those before a resume.
        seconds: Wall-clock seconds of training, as the caller counts them.
        tokens_per_second: Tokens trained a second, padding excluded.
        trainable_parameters: Parameters that were trained.
        total_parameters: Parameters of the model.
        active_parameters: Those of them that one token goes through.
        closing: Lines under the table, name to text: where model, metrics and plot are, what to do next.
        scores: Benchmark to what its scores came to; empty where the run was not scored.
    """

    tasks: Mapping[str, TaskSummary]
    steps: int
    seconds: float
    tokens_per_second: float
    trainable_parameters: int
    total_parameters: int
    active_parameters: int
    closing: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, ScoreSummary] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON; without scores where there are none."""
        values = dataclasses.asdict(self)
        return values if self.scores else {key: value for key, value in values.items() if key != "scores"}

    def write(self, run_dir: Path) -> Path:
        """Writes `run_dir`/summary.json, whole or not at all, and returns its path."""
        path = run_dir / SUMMARY_NAME
        write_atomically(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        return path

    def totals(self) -> str:
        """Steps, time, speed and parameters in one line."""
        some = self.active_parameters != self.total_parameters
        active = f", {text.count(self.active_parameters)} active per token" if some else ""
        return (
            f"{self.steps} steps in {text.duration(self.seconds)}, "
            f"{text.short_count(self.tokens_per_second)} tokens/s, "
            f"{text.count(self.trainable_parameters)} of {text.count(self.total_parameters)} "
            f"parameters trained{active}"
        )


def summarize(
    records: Iterable[Mapping[str, Any]],
    counts: Mapping[str, TaskCounts],
    *,
    steps: int,
    seconds: float,
    tokens_per_second: float,
    trainable_parameters: int,
    total_parameters: int,
    active_parameters: int | None = None,
    closing: Mapping[str, str] | None = None,
    frozen: Mapping[str, int] = MappingProxyType({}),
) -> Summary:
    """Draws a run's results from its metric records, so that a resumed run tells of its whole history.

    Args:
        records: Records of the metrics file, in order.
        counts: Task name to what its data holds; gives the order of the tasks.
        steps: Optimizer steps taken.
        seconds: Wall-clock seconds of training.
        tokens_per_second: Tokens trained a second.
        trainable_parameters: Parameters that were trained.
        total_parameters: Parameters of the model.
        active_parameters: Those that one token goes through; None for all.
        closing: Lines for under the table, name to text.
        frozen: Task name to the step at which it was frozen; other tasks were trained to the end.
    """
    records = list(records)
    return Summary(
        tasks={name: _task_summary(records, name, counts[name], frozen.get(name)) for name in counts},
        steps=steps,
        seconds=seconds,
        tokens_per_second=tokens_per_second,
        trainable_parameters=trainable_parameters,
        total_parameters=total_parameters,
        active_parameters=total_parameters if active_parameters is None else active_parameters,
        closing=dict(closing or {}),
        scores=score_summaries(records),
    )


def series(records: Iterable[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, where it was measured and finite."""
    points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def table(summary: Summary, width: int = 100) -> Table:
    """The table per task, for a rich console of `width` columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    headers, rows = _cells(summary, width - 2)
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, lines in enumerate(headers):
        made.add_column("\n".join(lines), justify="right" if number else "left", no_wrap=True)
    for row in rows[: len(summary.tasks)]:
        made.add_row(*map(Text, row))
    for row in rows[len(summary.tasks) :]:
        made.add_section()
        made.add_row(*map(Text, row), style="bold")
    return made


def plain_text(summary: Summary, width: int = 100) -> str:
    """Table, totals and closing lines in ASCII, for a log; the table fits `width` columns."""
    headers, rows = _cells(summary, width)
    cells = [[lines[number] for lines in headers] for number in (0, 1)] + rows
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_aligned(row, widths) for row in cells]
    lines.insert(2, "-" * (sum(widths) + _GAP * (len(widths) - 1)))
    return "\n".join([*lines, "", *closing_lines(summary)])


def closing_lines(summary: Summary) -> list[str]:
    """The lines under the table: scores, totals, and texts, aligned."""
    width = max((len(name) for name in summary.closing), default=0) + 1
    closing = [f"{name + ':':<{width}} {value}" for name, value in summary.closing.items()]
    return [*score_lines(summary.scores), summary.totals(), *closing]


def _task_summary(
    records: Sequence[Mapping[str, Any]], name: str, counts: TaskCounts, frozen_step: int | None
) -> TaskSummary:
    _, train = series(records, f"train/loss/{name}")
    steps, valid = series(records, f"valid/loss/{name}")
    best = min(range(len(valid)), key=valid.__getitem__) if valid else None
    return TaskSummary(
        samples=counts.samples,
        valid_samples=counts.valid_samples,
        target_tokens=counts.target_tokens,
        train_first=train[0] if train else None,
        train_last=train[-1] if train else None,
        valid_first=valid[0] if valid else None,
        valid_last=valid[-1] if valid else None,
        valid_best=None if best is None else valid[best],
        valid_best_step=None if best is None else steps[best],
        frozen_step=frozen_step,
    )


def _cells(summary: Summary, width: int) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Headers and rows that fit `width` columns; of several tasks the last row is their mean."""
    tasks = list(summary.tasks.values())
    if len(tasks) > 1:
        tasks.append(_together(tasks))
    columns = [*_COLUMNS, *([_FROZEN] if any(task.frozen_step is not None for task in tasks) else [])]
    while (room := width - sum(_width(column, tasks) + _GAP for column in columns)) < _NAME_WIDTHS[0]:
        if len(columns) == 1:
            break
        columns.remove(min(columns, key=lambda column: column.keep))
    short = text.short_names(list(summary.tasks), min(max(room, _NAME_WIDTHS[0]), _NAME_WIDTHS[1]))
    names = [*short.values(), "mean / total"]
    rows = [
        [name, *(column.cell(task) for column in columns)] for name, task in zip(names, tasks, strict=False)
    ]
    return [("", "task"), *(column.header for column in columns)], rows


def _width(column: _Column, tasks: Sequence[TaskSummary]) -> int:
    return max(map(len, [*column.header, *map(column.cell, tasks)]))


def _together(tasks: Sequence[TaskSummary]) -> TaskSummary:
    return TaskSummary(
        samples=sum(task.samples for task in tasks),
        valid_samples=sum(task.valid_samples for task in tasks),
        target_tokens=sum(task.target_tokens for task in tasks),
        train_first=_mean(task.train_first for task in tasks),
        train_last=_mean(task.train_last for task in tasks),
        valid_last=_mean(task.valid_last for task in tasks),
        valid_best=_mean(task.valid_best for task in tasks),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
    return (" " * _GAP).join([f"{cells[0]:<{widths[0]}}", *padded[1:]]).rstrip()
