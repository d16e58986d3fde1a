"""What each sample of a task is for, and the second pass over the sources that follows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mftrun.data.sample import Sample
from mftrun.data.scan import Reading, Scan
from mftrun.data.source import Source
from mftrun.data.split import TRAIN, UNUSED, VALID, ValidationSize, split
from mftrun.errors import DataError


@dataclass(frozen=True)
class Part:
    """The samples of one source, with the role of each, int8[good samples]."""

    source: Source
    roles: npt.NDArray[np.int8]

    def chosen(self) -> Iterator[tuple[Sample, int]]:
        """The samples that are used, with their roles."""
        count = 0
        for item in self.source.read():
            if isinstance(item, Sample):
                count += 1
                role = self.roles[count - 1] if count <= len(self.roles) else UNUSED
                if role != UNUSED:
                    yield item, int(role)
        if count != len(self.roles):
            raise DataError(self.source.location, 0, "changed while it was read; start again")


@dataclass(frozen=True)
class Selection:
    """What to write of a task."""

    scan: Scan
    parts: list[Part]

    @property
    def task(self) -> str:
        return self.scan.task

    def count(self, role: int) -> int:
        return sum(int((part.roles == role).sum()) for part in self.parts)


def select(scan: Scan, settings: DataSettings, seed: int) -> Selection:
    for reading in scan.readings:
        if reading.good == 0:
            raise DataError(reading.source.location, 0, _no_sample(scan.task, reading))
    train, *valid = scan.readings
    size = settings.validation_size if not valid else ValidationSize(0.0, 0, 0)
    parts = [Part(train.source, split(train.good, scan.task, seed, size, scan.max_samples))]
    parts += [Part(reading.source, np.full(reading.good, VALID, dtype=np.int8)) for reading in valid]
    return Selection(scan, parts)


def _no_sample(task: str, reading: Reading) -> str:
    first = f"; {reading.bad:,} bad lines, the first: {reading.examples[0]}" if reading.bad else ""
    return f"task {task!r} has no valid sample{first}"


def train_texts(selections: Sequence[Selection]) -> Iterator[str]:
    for selection in selections:
        for part in selection.parts:
            for sample, role in part.chosen():
                if role == TRAIN:
                    yield from (message.content for message in sample.messages)
