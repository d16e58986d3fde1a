"""From samples to stores: encode, fit to the longest length allowed, write, count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mftrun.data.encoder import Encoded
from mftrun.data.progress import progress
from mftrun.data.report import Counts, DataReport, TaskReport
from mftrun.data.sample import Sample
from mftrun.data.scan import EXAMPLES
from mftrun.data.selection import Selection
from mftrun.data.split import TRAIN, UNUSED, VALID
from mftrun.data.store import Entry, StoreWriter, store_writer
from mftrun.data.template import ConversationEncoder
from mftrun.errors import DataError

TRAIN_STORE, VALID_STORE, REPORT = "train", "valid", "report.json"

_CHUNK = 512


@dataclass(frozen=True)
class OnOverlong:
    """What becomes of over-long samples: each one is shortened or left out; at the end they may be refused."""

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


def write_stores(
    selections: Sequence[Selection],
    settings: DataSettings,
    encoder: ConversationEncoder,
    report: DataReport,
    directory: Path,
) -> None:
    names = [selection.task for plan in selections]
    train = store_writer(directory / TRAIN_STORE, names, report.fingerprint)
    valid = store_writer(directory / VALID_STORE, names, report.fingerprint)
    with train as train_writer, valid as valid_writer:
        (directory / REPORT).unlink(
            missing_ok=True
        )  # from here on, until it is back, the folder is incomplete
        fits = [
            TaskWriter(number, plan, settings, {TRAIN: train_writer, VALID: valid_writer})
            for number, plan in enumerate(selections)
        ]
        for fit in fits:
            report.tasks[fit.selection.task] = fit.write(encoder)
        _refuse_overlong(fits, settings)
        for fit in fits:
            fit.check_not_empty()


class TaskWriter:
    """Encodes one task and writes what fits."""

    def __init__(
        self, number: int, selection: Selection, settings: DataSettings, writers: Mapping[int, StoreWriter]
    ) -> None:
        self.selection = plan
        self.overlong: list[tuple[Sample, int]] = []
        self._number = number
        self._max_length = settings.max_length
        self._shorten = ON_OVERLONG[settings.on_overlong].shorten
        self._writers = writers
        scan = selection.scan
        examples = [str(error) for error in scan.examples]
        self.report = TaskReport(bad=scan.bad, bad_examples=examples, unused=selection.count(UNUSED))
        self._counts = {TRAIN: self.report.train, VALID: self.report.valid}

    def write(self, encoder: ConversationEncoder) -> TaskReport:
        total = self.selection.count(TRAIN) + self.selection.count(VALID)
        with progress(f"tokenizing {self.selection.task}", total) as advance:
            for part in self.selection.parts:
                for chunk in _chunks(part.chosen()):
                    encoded = encoder.encode_all([sample.messages for sample, _ in chunk])
                    for (sample, role), item in zip(chunk, encoded, strict=True):
                        self._add(sample, role, item)
                    advance(len(chunk))
        return self.report

    def check_not_empty(self) -> None:
        """Raises DataError where the plan has samples and none was written."""
        for role, name in ((TRAIN, "training"), (VALID, "validation")):
            if self.selection.count(role) and not self._counts[role].samples:
                message = f"task {self.selection.task!r} has no {name} sample left: none of its "
                message += (
                    f"{self.selection.count(role):,} has a target token within data.max_length={self._max_length}"
                )
                raise DataError(self.selection.parts[-1 if role == VALID else 0].source.location, 0, message)

    def _add(self, sample: Sample, role: int, encoded: Encoded) -> None:
        counts = self._counts[role]
        kept = self._fitting(sample, encoded, counts)
        if kept is not None:
            self._writers[role].append(Entry(kept.ids, kept.targets, self._number, sample.origin))
            counts.samples += 1
            counts.tokens += len(kept.ids)
            counts.target_tokens += int(np.count_nonzero(kept.targets[1:]))
            counts.truncated += len(kept.ids) < len(encoded.ids)

    def _fitting(self, sample: Sample, encoded: Encoded, counts: Counts) -> Encoded | None:
        length = len(encoded.ids)
        self.report.longest = max(self.report.longest, length)
        fitting: Encoded | None = encoded
        if length > self._max_length:
            fitting = self._shorten(encoded, self._max_length)
            if fitting is None:
                counts.overlong += 1
                if len(self.overlong) < EXAMPLES:
                    self.overlong.append((sample, length))
        if fitting is not None and not fitting.targets[1:].any():
            counts.without_target += 1
            return None
        return fitting


def _refuse_overlong(writers: Sequence[TaskWriter], settings: DataSettings) -> None:
    examples = [example for writer in writers for example in writer.overlong]
    if not examples or not ON_OVERLONG[settings.on_overlong].is_refused:
        return
    tasks = {writer.selection.task: writer.report for writer in writers if writer.overlong}
    counts = ", ".join(
        f"{task!r} {report.train.overlong + report.valid.overlong:,}" for task, report in tasks.items()
    )
    longest = max(report.longest for report in tasks.values())
    sample, length = examples[0]
    message = (
        f"{length:,} tokens, more than data.max_length={settings.max_length}\n"
        f"over-long samples by task: {counts}; the longest has {longest:,} tokens\n"
        f"raise data.max_length, or set data.on_overlong=skip (leave them out) or truncate (cut their end)"
    )
    raise DataError(sample.origin.path, sample.origin.line, message)


def _chunks(items: Iterable[tuple[Sample, int]]) -> Iterator[list[tuple[Sample, int]]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
