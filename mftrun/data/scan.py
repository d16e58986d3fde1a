"""The first pass over the sources: count what is there, collect what is wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from mftrun.data.sample import Sample
from mftrun.data.source import Source
from mftrun.errors import DataError

EXAMPLES = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """One pass over a source.

    Attributes:
        source: What was read.
        good: Samples.
        bad: Lines that are no sample.
        examples: The first few errors.
    """

    source: Source
    good: int
    bad: int
    examples: list[DataError]


@dataclass(frozen=True)
class Scan:
    """A task after the first pass.

    Attributes:
        task: Its name.
        readings: Of the training source, then of the validation source if there is one.
    """

    task: str
    readings: list[Reading]

    @property
    def bad(self) -> int:
        """Lines that are no sample."""
        return sum(reading.bad for reading in self.readings)

    @property
    def examples(self) -> list[DataError]:
        """The first few errors."""
        return [error for reading in self.readings for error in reading.examples][:EXAMPLES]


def scan(task: str, train: Source, valid: Source | None) -> Scan:
    """Reads the sources of a task to their end.

    Raises:
        DataError: A source cannot be read at all.
    """
    return Scan(task, [_read(source) for source in (train, valid) if source is not None])


def _read(source: Source) -> Reading:
    good = bad = 0
    examples: list[DataError] = []
    for item in source.read():
        if isinstance(item, Sample):
            good += 1
            continue
        bad += 1
        if len(examples) < EXAMPLES:
            examples.append(item)
    return Reading(source, good, bad, examples)


def _refuse_bad(scans: Sequence[Scan]) -> None:
    bad = [scan for scan in scans if scan.bad]
    if not bad:
        return
    first, *others = [error for scan in bad for error in scan.examples]
    counts = ", ".join(f"{scan.task!r} {scan.bad:,}" for scan in bad)
    lines = [first.message, *(f"  {error}" for error in others[: EXAMPLES - 1])]
    lines += [f"bad lines by task: {counts}; mend them, or leave them out with data.on_bad=skip"]
    raise DataError(first.path, first.line, "\n".join(lines))


def _log_bad(scans: Sequence[Scan]) -> None:
    for scan in scans:
        if scan.bad:
            _log.warning(
                "task %r: %s bad lines left out, as %s", scan.task, f"{scan.bad:,}", scan.examples[0]
            )


ON_BAD = MappingProxyType({"error": _refuse_bad, "skip": _log_bad})
