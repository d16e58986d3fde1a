"""What a run came to: per task and in total, as JSON and as a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mftrun.tracking import text
from mftrun.tracking.files import write_atomically

if TYPE_CHECKING:
    from rich.table import Table

SUMMARY_NAME = "summary.json"
_NAME_WIDTH = 22
_HEADERS = (
    ("", "task"),
    ("", "samples"),
    ("valid", "samples"),
    ("target", "tokens"),
    ("train", "first"),
    ("train", "last"),
    ("valid", "last"),
    ("valid", "best"),
    ("best at", "step"),
)


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
    """Results of one task: its counts, and its losses (nll per target token); None where never measured."""

    samples: int
    valid_samples: int
    target_tokens: int
    train_first: float | None = None
    train_last: float | None = None
    valid_first: float | None = None
    valid_last: float | None = None
    valid_best: float | None = None
    valid_best_step: int | None = None


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
        closing: Lines under the table, name to text: where model, metrics and plot are, what to do next.
    """

    tasks: Mapping[str, TaskSummary]
    steps: int
    seconds: float
    tokens_per_second: float
    trainable_parameters: int
    total_parameters: int
    closing: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        return dataclasses.asdict(self)

    def write(self, run_dir: Path) -> Path:
        """Writes `run_dir`/summary.json, whole or not at all, and returns its path."""
        path = run_dir / SUMMARY_NAME
        write_atomically(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        return path

    def totals(self) -> str:
        """Steps, time, speed and parameters in one line."""
        return (
            f"{self.steps} steps in {text.duration(self.seconds)}, "
            f"{text.short_count(self.tokens_per_second)} tokens/s, "
            f"{text.count(self.trainable_parameters)} of {text.count(self.total_parameters)} "
            "parameters trained"
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
    closing: Mapping[str, str] | None = None,
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
        closing: Lines for under the table, name to text.
    """
    records = list(records)
    return Summary(
        tasks={name: _task_summary(records, name, counts[name]) for name in counts},
        steps=steps,
        seconds=seconds,
        tokens_per_second=tokens_per_second,
        trainable_parameters=trainable_parameters,
        total_parameters=total_parameters,
        closing=dict(closing or {}),
    )


def series(records: Iterable[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, where it was measured and finite."""
    points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def table(summary: Summary) -> Table:
    """The table per task, for a rich console."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for number, lines in enumerate(_HEADERS):
        made.add_column("\n".join(lines), justify="right" if number else "left", no_wrap=True)
    *rows, mean = _rows(summary)
    for row in rows:
        made.add_row(*map(Text, row))
    if len(rows) > 1:
        made.add_section()
        made.add_row(*map(Text, mean), style="bold")
    return made


def plain_text(summary: Summary) -> str:
    """Table, totals and closing lines in ASCII, for a log; the table fits 100 columns."""
    rows = _rows(summary)
    if len(rows) == 2:
        del rows[-1]
    cells = [[header[line] for header in _HEADERS] for line in (0, 1)] + rows
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADERS))]
    lines = [_aligned(row, widths) for row in cells]
    lines.insert(2, "-" * len(_aligned([""] * len(widths), widths)))
    return "\n".join([*(line.rstrip() for line in lines), "", summary.totals(), *closing_lines(summary)])


def closing_lines(summary: Summary) -> list[str]:
    """The lines under the table, their texts aligned."""
    width = max((len(name) for name in summary.closing), default=0) + 1
    return [f"{name + ':':<{width}} {value}" for name, value in summary.closing.items()]


def _task_summary(records: Sequence[Mapping[str, Any]], name: str, counts: TaskCounts) -> TaskSummary:
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
    )


def _rows(summary: Summary) -> list[list[str]]:
    short = text.short_names(list(summary.tasks), _NAME_WIDTH)
    rows = [_row(short[name], task) for name, task in summary.tasks.items()]
    return [*rows, _row("mean / total", _together(list(summary.tasks.values())))]


def _row(name: str, task: TaskSummary) -> list[str]:
    losses = (task.train_first, task.train_last, task.valid_last, task.valid_best)
    counts = (task.samples, task.valid_samples, task.target_tokens)
    best_step = "" if task.valid_best_step is None else str(task.valid_best_step)
    return [name, *map(text.count, counts), *map(text.loss, losses), best_step]


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
    return "  ".join([f"{cells[0]:<{widths[0]}}", *padded[1:]])
