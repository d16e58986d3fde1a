"""The first pass over a source: count what is there, collect what is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mftrun.data.progress import progress
from mftrun.data.sample import EXAMPLES, Sample
from mftrun.data.source import Chunk, Source
from mftrun.data.workers import Workers, using
from mftrun.errors import DataError


@dataclass
class Reading:
    """What one pass over a source found.

    Attributes:
        counts: Samples of each chunk.
        bad: Entries that are no sample.
        errors: Of one chunk all its errors, of more the first few.
        formats: How many samples were written in each format.
        unread: Keys that nothing reads, and how many samples have them.
    """

    counts: list[int] = field(default_factory=list)
    bad: int = 0
    errors: list[DataError] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)

    @property
    def good(self) -> int:
        """Samples."""
        return sum(self.counts)

    @property
    def examples(self) -> list[DataError]:
        """The first few errors."""
        return self.errors[:EXAMPLES]

    def add(self, other: Reading) -> None:
        """Adds what was found further on in the source."""
        self.counts += other.counts
        self.bad += other.bad
        self.errors = [*self.errors, *other.errors][:EXAMPLES]
        self.formats += other.formats
        self.unread += other.unread

    def add_bad(self, error: DataError) -> None:
        """Adds an entry that is no sample."""
        self.bad += 1
        self.errors.append(error)


def scan(source: Source, workers: Workers | int, title: str = "") -> Reading:
    """Reads a source to its end.

    Args:
        source: The source.
        workers: Processes for large sources, or at most how many there shall be.
        title: What the progress bar says; by default, where the source is.

    Raises:
        DataError: The source cannot be read at all.
    """
    found = Reading()
    with (
        using(workers) as processes,
        progress(title or f"reading {source.location}", source.size()) as advance,
        processes.results(_scanned, source.chunks()) as parts,
    ):
        for part, size in parts:
            found.add(part)
            advance(size)
    return found


def _scanned(chunk: Chunk) -> tuple[Reading, int]:
    found, good = Reading(), 0
    for item in chunk.items():
        if isinstance(item, Sample):
            good += 1
            found.formats[item.format] += 1
            found.unread.update(item.unread)
        else:
            found.add_bad(item)
    found.counts = [good]
    return found, chunk.size
