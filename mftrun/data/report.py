"""What became of the samples of each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mftrun.text_table import text_table

PERCENTILES = (50, 90, 99)
_NAMES = 8  # of keys that are not read

_HEADINGS = (
    *("task", "train", "valid", "tokens", "targets", "target share"),
    *("bad lines", "over-long", "cut", "nothing to train", "unused"),
)


@dataclass
class Counts:
    """Samples of one task on their way into training or validation.

    Attributes:
        samples: Samples that are used.
        tokens: Their tokens.
        target_tokens: Their target tokens.
        overlong: Samples longer than ``max_length``, left out or cut.
        truncated: Samples used that were cut to ``max_length``.
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
        bad: Lines that are no sample, or that the template cannot render.
        bad_examples: The first few of them, as ``file:line: what is wrong``.
        formats: How many samples were written in which format.
        unread: Keys that nothing reads, and how many samples have them.
        unused: Good samples left out by ``max_samples``.
        longest: Tokens of the longest sample, before any cut.
        percentiles: Tokens of a sample at each of `PERCENTILES`, before any cut.
        overlong_examples: The first few over-long samples, as ``file:line: tokens``.
    """

    train: Counts = field(default_factory=Counts)
    valid: Counts = field(default_factory=Counts)
    bad: int = 0
    bad_examples: list[str] = field(default_factory=list)
    formats: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    unused: int = 0
    longest: int = 0
    percentiles: dict[str, int] = field(default_factory=dict)
    overlong_examples: list[str] = field(default_factory=list)


@dataclass
class DataReport:
    """All tasks of a run.

    Attributes:
        tasks: By name, in the order of the tables' task ids.
        fingerprint: Digest of everything the tables were made from; the tables hold it too.
        tokenizer: Digest of the tokenizer that encoded them.
        reused: Whether the tables of a resumed run were kept.
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
        return text_table(cells)

    def places(self) -> str:
        """Lines of text: formats, lengths, and where bad lines and over-long samples are, per task."""
        return "\n".join(line for name, task in self.tasks.items() for line in _places(name, task))


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


def _places(name: str, task: TaskReport) -> Iterator[str]:
    formats = ", ".join(f"{form} {count:,}" for form, count in task.formats.items())
    ranks = ", ".join(f"{rank}% {tokens:,}" for rank, tokens in task.percentiles.items())
    yield f"{name}: format {formats or '-'}; tokens of a sample: {ranks}, longest {task.longest:,}"
    if task.unread:
        yield f"  keys not read: {_most(task.unread)}"
    overlong = task.train.overlong + task.valid.overlong
    yield from _examples("bad lines", task.bad, task.bad_examples)
    yield from _examples("over-long samples", overlong, task.overlong_examples)


def _most(counts: Mapping[str, int]) -> str:
    """The most frequent of some names, and how many more there are."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(ranked) - _NAMES:,} more" if len(ranked) > _NAMES else ""
    return ", ".join(f"{name} {count:,}" for name, count in ranked[:_NAMES]) + more


def _examples(title: str, count: int, examples: Sequence[str]) -> Iterator[str]:
    if count:
        more = f", the first {len(examples)}" if count > len(examples) else ""
        yield f"  {title}: {count:,}{more}:"
        yield from (f"    {example}" for example in examples)
