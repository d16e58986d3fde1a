"""From samples to stores: encode, fit to the longest length allowed, write, count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from mftrun.data.encoder import Encoded
from mftrun.data.progress import progress
from mftrun.data.report import Counts, TaskReport
from mftrun.data.sample import Origin
from mftrun.data.scan import EXAMPLES
from mftrun.data.selection import Chosen, Selection
from mftrun.data.split import TRAIN, UNUSED, VALID
from mftrun.data.store import Entry, StoreWriter, store_writer
from mftrun.data.template import ConversationEncoder
from mftrun.errors import DataError

TRAIN_STORE, VALID_STORE, REPORT = "train", "valid", "report.json"

_CHUNK = 2048


@dataclass(frozen=True)
class OnOverlong:
    """What becomes of over-long samples.

    Attributes:
        shorten: Gives what is kept of one, at most so many tokens, or None.
        is_refused: Whether the run stops, after all have been counted.
    """

    shorten: Callable[[Encoded, int], Encoded | None]
    is_refused: bool = False


def _leave_out(encoded: Encoded, max_length: int) -> None:
    return None


def _cut(encoded: Encoded, max_length: int) -> Encoded:
    return Encoded(encoded.ids[:max_length], encoded.targets[:max_length])


ON_OVERLONG = MappingProxyType(
    {
        "error": OnOverlong(_leave_out, is_refused=True),
        "skip": OnOverlong(_leave_out),
        "truncate": OnOverlong(_cut),
    }
)


class Stores(NamedTuple):
    """The stores being written."""

    train: StoreWriter
    valid: StoreWriter


@contextmanager
def writers(directory: Path, tasks: Sequence[str], fingerprint: str) -> Iterator[Stores]:
    """Opens both stores of a run; they appear when the block ends well.

    Raises:
        DataError: The folder cannot be written.
    """
    train = store_writer(directory / TRAIN_STORE, tasks, fingerprint)
    valid = store_writer(directory / VALID_STORE, tasks, fingerprint)
    with train as train_writer, valid as valid_writer:
        yield Stores(train_writer, valid_writer)


class Fit(NamedTuple):
    """How samples are made to fit.

    Attributes:
        max_length: Longest sample in tokens.
        overlong: What becomes of a longer one.
    """

    max_length: int
    overlong: OnOverlong


def encode(
    selections: Sequence[Selection], encoder: ConversationEncoder, fit: Fit, stores: Stores
) -> dict[str, TaskReport]:
    """Encodes the selected samples of all tasks, in the order of the tasks, and writes them.

    Raises:
        DataError: Over-long samples are refused, or nothing is left of a task.
    """
    tasks = [_TaskWriter(number, selection, fit, stores) for number, selection in enumerate(selections)]
    for task in tasks:
        task.write(encoder)
    if fit.overlong.is_refused:
        _refuse(tasks, fit.max_length)
    for task in tasks:
        task.check_not_empty()
    return {task.selection.task: task.report for task in tasks}


class _TaskWriter:
    """Encodes one task, writes what fits, and counts."""

    def __init__(self, number: int, selection: Selection, fit: Fit, stores: Stores) -> None:
        scan = selection.scan
        self.selection = selection
        self.report = TaskReport(bad=scan.bad, bad_examples=[str(error) for error in scan.examples])
        self.report.unused = selection.count(UNUSED)
        self.overlong: list[tuple[Origin, int]] = []
        self._number = number
        self._fit = fit
        self._ways = {TRAIN: (stores.train, self.report.train), VALID: (stores.valid, self.report.valid)}

    def write(self, encoder: ConversationEncoder) -> None:
        total = self.selection.count(TRAIN) + self.selection.count(VALID)
        with progress(f"tokenizing {self.selection.task}", total) as advance:
            for part in self.selection.parts:
                for chunk in _chunks(part.chosen()):
                    self._write_chunk(chunk, encoder)
                    advance(len(chunk))

    def check_not_empty(self) -> None:
        """Raises DataError if samples were selected and none of them was written."""
        for role, name in ((TRAIN, "training"), (VALID, "validation")):
            selected, (_, counts) = self.selection.count(role), self._ways[role]
            if selected and not counts.samples:
                within = f"within data.max_length={self._fit.max_length} and has a target token there"
                message = (
                    f"none of the {selected:,} {name} samples of task {self.selection.task!r} is {within}"
                )
                raise DataError(self.selection.source_of(role).location, 0, message)

    def _write_chunk(self, chunk: list[Chosen], encoder: ConversationEncoder) -> None:
        encoded = encoder.encode_all([sample.messages for sample, _ in chunk])
        for (sample, role), item in zip(chunk, encoded, strict=True):
            writer, counts = self._ways[role]
            fitting = self._fitting(item, sample.origin, counts)
            if fitting is not None:
                writer.append(Entry(*fitting, self._number, sample.origin))
                _count(counts, fitting, is_cut=len(fitting.ids) < len(item.ids))

    def _fitting(self, encoded: Encoded, origin: Origin, counts: Counts) -> Encoded | None:
        length = len(encoded.ids)
        self.report.longest = max(self.report.longest, length)
        if length > self._fit.max_length:
            shortened = self._fit.overlong.shorten(encoded, self._fit.max_length)
            if shortened is None:
                counts.overlong += 1
                self.overlong = [*self.overlong, (origin, length)][:EXAMPLES]
                return None
            encoded = shortened
        if not encoded.targets[1:].any():
            counts.without_target += 1
            return None
        return encoded


def _count(counts: Counts, encoded: Encoded, is_cut: bool) -> None:
    counts.samples += 1
    counts.tokens += len(encoded.ids)
    counts.target_tokens += int(np.count_nonzero(encoded.targets[1:]))
    counts.truncated += is_cut


def _refuse(tasks: Sequence[_TaskWriter], max_length: int) -> None:
    refused = [task for task in tasks if task.overlong]
    if not refused:
        return
    origin, length = refused[0].overlong[0]
    others = [example for task in refused for example in task.overlong][1:EXAMPLES]
    reports = {task.selection.task: task.report for task in refused}
    numbers = {name: report.train.overlong + report.valid.overlong for name, report in reports.items()}
    lines = [
        f"{length:,} tokens, more than data.max_length={max_length}",
        *(f"  {place}: {tokens:,} tokens" for place, tokens in others),
        f"over-long samples by task: {', '.join(f'{name!r} {count:,}' for name, count in numbers.items())}; "
        f"the longest has {max(report.longest for report in reports.values()):,} tokens",
        "raise data.max_length, or set data.on_overlong=skip (leave them out) or truncate (cut their end)",
    ]
    raise DataError(origin.path, origin.line, "\n".join(lines))


def _chunks(items: Iterable[Chosen]) -> Iterator[list[Chosen]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
