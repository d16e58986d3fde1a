"""A source as an endless stream of samples that can be entered at any place."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from mftrun.data.chunks import MadeChunk
from mftrun.data.sample import Sample
from mftrun.data.source import Chunk, Source
from mftrun.errors import DataError


@dataclass(frozen=True)
class Position:
    """The place of the next entry to be read.

    It counts chunks, so that a stream is entered again without parsing what lies before.

    Attributes:
        passes: How often the source has been read to its end.
        chunks: The chunk of the source, from 0.
        items: Entries of that chunk that have been read, bad ones included.
    """

    passes: int = 0
    chunks: int = 0
    items: int = 0


START = Position()


class TaskStream:
    """The samples of a source in its order, again from its beginning when it ends.

    Args:
        source: The source.
        begin: Where each pass begins.
        at: Where to enter; None enters at `begin`.

    Attributes:
        position: The next entry.
    """

    def __init__(self, source: Source, begin: Position = START, at: Position | None = None) -> None:
        self.position = begin if at is None else at
        self._source = source
        self._begin = begin
        self._chunks: Iterator[Chunk] | None = None
        self._rest: deque[Sample | DataError] = deque()
        self._fruitless = False

    def take(self, count: int) -> Iterator[MadeChunk]:
        """Reads on until there are so many more samples; bad entries among them are given, too.

        Raises:
            DataError: The source cannot be read, has no sample, or is shorter than it was.
        """
        while count:
            while not self._rest:
                self._load()
            part = self._part(count)
            count -= sum(isinstance(item, Sample) for item in part)
            yield MadeChunk(tuple(part))

    def _part(self, most: int) -> list[Sample | DataError]:
        """Entries of the present chunk, up to so many samples."""
        taken: list[Sample | DataError] = []
        while self._rest and most:
            taken.append(self._rest.popleft())
            if isinstance(taken[-1], Sample):
                most -= 1
                self._fruitless = False
        self.position = replace(self.position, items=self.position.items + len(taken))
        return taken

    def _load(self) -> None:
        """Reads the next chunk, which may hold nothing, or goes back to the beginning."""
        if self._chunks is None:
            self._chunks = self._entered()
            return
        chunk = next(self._chunks, None)
        if chunk is None:
            self._wrap()
            return
        self.position = replace(self.position, chunks=self.position.chunks + 1, items=0)
        self._rest.extend(chunk.items())

    def _entered(self) -> Iterator[Chunk]:
        """The chunks behind the present one, the rest of which has been read."""
        at, chunks = self.position, iter(self._source.chunks())
        skipped = sum(1 for _ in islice(chunks, at.chunks))
        chunk = next(chunks, None) if skipped == at.chunks else None
        items = [] if chunk is None else list(chunk.items())
        if len(items) < at.items or (chunk is None and at.chunks):
            raise DataError(self._source.location, 0, "ends before the place where it is to be read on")
        self._rest.extend(items[at.items :])
        return chunks

    def _wrap(self) -> None:
        if self._fruitless:
            raise DataError(self._source.location, 0, "no sample to train on in all of it")
        self._fruitless = True
        self._chunks = None
        self.position = replace(self._begin, passes=self.position.passes + 1)


@dataclass(frozen=True)
class Taken:
    """The next samples of a stream as a source, which can be read once."""

    stream: TaskStream
    location: str
    count: int

    def size(self) -> int:
        """How many there will be."""
        return self.count

    def chunks(self) -> Iterator[Chunk]:
        """Reads the stream on."""
        return self.stream.take(self.count)

    def fingerprint(self) -> Mapping[str, Any]:
        """Nothing: what is read depends on where the stream is."""
        return {}
