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

Chosen = tuple[Sample, int]


@dataclass(frozen=True)
class Part:
    """The samples of one source, with the role of each, int8[good samples]."""

    source: Source
    roles: npt.NDArray[np.int8]

    def chosen(self) -> Iterator[Chosen]:
        """The samples that are used, with their roles.

        Raises:
            DataError: The source has not as many samples as in the first pass.
        """
        count = 0
        for item in self.source.read():
            if isinstance(item, Sample):
                role = self.roles[count] if count < len(self.roles) else UNUSED
                count += 1
                if role != UNUSED:
                    yield item, int(role)
        if count != len(self.roles):
            raise DataError(self.source.location, 0, "changed while it was read; start again")


@dataclass(frozen=True)
class Selection:
    """What to write of a task.

    Attributes:
        scan: The task after the first pass.
        parts: Its sources, with the role of each sample.
    """

    scan: Scan
    parts: list[Part]

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.scan.task

    def source_of(self, role: int) -> Source:
        """The first source that has a sample of this role."""
        return next(part.source for part in self.parts if role in part.roles)

    def count(self, role: int) -> int:
        """Samples of this role."""
        return sum(int((part.roles == role).sum()) for part in self.parts)


def select(found: Scan, size: ValidationSize, max_samples: int | None, seed: int) -> Selection:
    """Decides what each sample of a task is for.

    Args:
        found: The task after the first pass.
        size: Validation samples to split off, unless there is a validation source, of which all are used.
        max_samples: Use a random subset of the training source of this size; None uses all.
        seed: Seed of the split.

    Raises:
        DataError: A source has no sample.
        ConfigError: There are too few to split.
    """
    for reading in found.readings:
        if reading.good == 0:
            raise DataError(reading.source.location, 0, _no_sample(found.task, reading))
    train, *valid = found.readings
    split_off = ValidationSize(0.0, 0, 0) if valid else size
    parts = [Part(train.source, split(train.good, found.task, seed, split_off, max_samples))]
    parts += [Part(reading.source, np.full(reading.good, VALID, dtype=np.int8)) for reading in valid]
    return Selection(found, parts)


def train_texts(selections: Sequence[Selection]) -> Iterator[str]:
    """The texts of all messages of all training samples."""
    for selection in selections:
        for part in selection.parts:
            for sample, role in part.chosen():
                if role == TRAIN:
                    yield from (message.content for message in sample.messages)


def _no_sample(task: str, reading: Reading) -> str:
    first = f"; {reading.bad:,} bad lines, the first: {reading.examples[0]}" if reading.bad else ""
    return f"task {task!r} has no valid sample{first}"
