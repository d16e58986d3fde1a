"""What became of the samples of each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_HEADINGS = (
    *("task", "train", "valid", "tokens", "targets", "target share"),
    *("bad lines", "over-long", "cut", "nothing to train", "unused"),
)


@dataclass
class Counts:
    """Samples of one task on their way into one store.

    Attributes:
        samples: Samples in the store.
        tokens: Their tokens.
        target_tokens: Their target tokens.
        overlong: Samples left out because they are longer than ``max_length``.
        truncated: Samples cut to ``max_length``; in the store.
        without_target: Samples left out because no target token is within ``max_length``.
    """

    samples: int = 0
    tokens: int = 0
    target_tokens: int = 0
    overlong: int = 0
    truncated: int = 0
    without_target: int = 0


@dataclass
class TaskReport:
    """One task.

    Attributes:
        train: Counts of the training samples.
        valid: Counts of the validation samples.
        bad: Lines that are no sample.
        bad_examples: The first few of them, as ``file:line: what is wrong``.
        unused: Good samples left out by ``max_samples``.
        longest: Tokens of the longest sample, before any cut.
    """

    train: Counts = field(default_factory=Counts)
    valid: Counts = field(default_factory=Counts)
    bad: int = 0
    bad_examples: list[str] = field(default_factory=list)
    unused: int = 0
    longest: int = 0


@dataclass
class DataReport:
    """All tasks of a run.

    Attributes:
        tasks: By name, in the order of the stores' task ids.
        fingerprint: Digest of everything the stores were made from; the stores hold it too.
        tokenizer: Digest of the tokenizer that encoded them.
        reused: Whether stores of an earlier start were found and kept.
    """

    tasks: dict[str, TaskReport]
    fingerprint: str
    tokenizer: str
    reused: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataReport:
        """The inverse of `to_dict`."""
        tasks = {name: _task_report(task) for name, task in values["tasks"].items()}
        return cls(**{**values, "tasks": tasks})

    def table(self) -> str:
        """A table of text with one line per task and their sum."""
        rows = [_row(name, task) for name, task in self.tasks.items()]
        totals = [sum(column) for column in zip(*(row[1] for row in rows), strict=True)]
        cells = [list(_HEADINGS)] + [_cells(name, numbers) for name, numbers in [*rows, ("total", totals)]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(_line(row, widths) for row in cells)


def _task_report(values: Mapping[str, Any]) -> TaskReport:
    counts = {name: Counts(**values[name]) for name in ("train", "valid")}
    return TaskReport(**{**values, **counts})


def _row(name: str, task: TaskReport) -> tuple[str, list[int]]:
    both = (task.train, task.valid)
    return name, [
        task.train.samples,
        task.valid.samples,
        sum(counts.tokens for counts in both),
        sum(counts.target_tokens for counts in both),
        task.bad,
        sum(counts.overlong for counts in both),
        sum(counts.truncated for counts in both),
        sum(counts.without_target for counts in both),
        task.unused,
    ]


def _cells(name: str, numbers: list[int]) -> list[str]:
    train, valid, tokens, targets, *rest = numbers
    share = f"{targets / tokens:.1%}" if tokens else "-"
    shown = [f"{number:,}" for number in (train, valid, tokens, targets)]
    return [name, *shown, share, *(f"{number:,}" for number in rest)]


def _line(cells: list[str], widths: list[int]) -> str:
    first, *rest = (
        cell.ljust(width) if number == 0 else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()
