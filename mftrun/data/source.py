"""Sources: where the samples of a task are read from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from mftrun.data.sample import Sample
from mftrun.errors import DataError


class Chunk(Protocol):
    """A piece of a source that has been read but not parsed; it can be pickled, to be parsed elsewhere."""

    @property
    def size(self) -> int:
        """About its share of the source: bytes of its file, or samples where there is no file."""

    def items(self) -> Iterator[Sample | DataError]:
        """Parses the samples; one that cannot be used is yielded as its error, and parsing goes on.

        Raises:
            DataError: The rest of the file cannot be read.
        """


@runtime_checkable
class Source(Protocol):
    """Samples that can be read again and again, in the same order each time."""

    @property
    def location(self) -> str:
        """What the user calls it: a path, or a few words."""

    def size(self) -> int:
        """About the sizes of all chunks together, without reading them; 0 where that is not known.

        Raises:
            DataError: Nothing can be read at all.
        """

    def chunks(self) -> Iterator[Chunk]:
        """Reads the source piece by piece, in order; memory is bounded by a few pieces.

        Raises:
            DataError: Nothing can be read at all, or a file is damaged from some place on. Policies for bad
                samples do not cover that: nobody knows how many samples are lost.
        """

    def fingerprint(self) -> Mapping[str, Any]:
        """Plain values (str, int, None) that change when the samples may have changed.

        Raises:
            DataError: Nothing can be read at all.
        """


def read(source: Source) -> Iterator[Sample | DataError]:
    """Reads and parses a source in this process: its samples, and an error for each one that is none.

    Raises:
        DataError: Nothing can be read at all, or a file is damaged from some place on.
    """
    for chunk in source.chunks():
        yield from chunk.items()


def fingerprint(source: Source) -> dict[str, Any]:
    """What a source's samples depend on, its class included: two classes may describe themselves alike."""
    kind = type(source)
    return {"source": f"{kind.__module__}.{kind.__qualname__}", **source.fingerprint()}
