from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from mftrun.data.sample import ASSISTANT, USER, Message, Origin, Sample
from mftrun.data.scan import EXAMPLES, scan
from mftrun.data.workers import Workers
from mftrun.errors import DataError


@dataclass(frozen=True)
class WordsChunk:
    first: int
    words: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.words)

    def items(self) -> Iterator[Sample | DataError]:
        for line, word in enumerate(self.words, start=self.first):
            if word == "stop":
                raise DataError("words", line, "damaged from here")
            if word == "bad":
                yield DataError("words", line, "is bad")
            else:
                messages = (Message(USER, word), Message(ASSISTANT, word.upper()))
                yield Sample(messages, Origin("words", line), format=f"{len(word)} letters")


@dataclass(frozen=True)
class Words:
    """A source of one word a sample, a few a chunk."""

    words: tuple[str, ...]
    per_chunk: int = 3
    location: str = "words"

    def size(self) -> int:
        return len(self.words)

    def chunks(self) -> Iterator[WordsChunk]:
        for start in range(0, len(self.words), self.per_chunk):
            yield WordsChunk(start + 1, self.words[start : start + self.per_chunk])

    def fingerprint(self) -> Mapping[str, Any]:
        return {"words": " ".join(self.words)}


WORDS = ("one", "bad", "three", "four", "five", "bad", "bad") + ("bad",) * EXAMPLES + ("seven",)


@pytest.mark.parametrize("processes", [1, 2])
def test_good_and_bad_are_counted_with_their_places(processes: int) -> None:
    with Workers(processes, spare=0) as workers:
        found = scan(Words(WORDS), workers)

    assert (found.good, found.bad) == (5, 3 + EXAMPLES)
    assert found.counts == [2, 2, 0, 0, 1]
    assert [error.line for error in found.examples] == [2, 6, 7, 8, 9]
    assert found.formats == {"3 letters": 1, "4 letters": 2, "5 letters": 2}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_damaged_source_stops_the_scan(processes: int) -> None:
    with Workers(processes, spare=0) as workers, pytest.raises(DataError, match="words:5: damaged from here"):
        scan(Words(("a", "b", "c", "d", "stop", "e", "f")), workers)


def test_an_empty_source() -> None:
    assert scan(Words(()), 1).good == 0
