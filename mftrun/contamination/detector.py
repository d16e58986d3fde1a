"""Looks for the texts of benchmarks in samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mftrun.contamination.index import Index, Match
from mftrun.contamination.passages import Passage
from mftrun.contamination.samples import Place, SampleText
from mftrun.contamination.views import CODE, PROSE

_COMMON = 2  # problems of a benchmark that may share an n-gram
_FEWEST = 8  # n-grams of a passage: shorter ones, such as the sum of two numbers, are ordinary code


class Hit(NamedTuple):
    """A text of a benchmark in a sample.

    Attributes:
        sample: Which sample.
        passage: The text.
        share: Share of its n-grams that the sample holds.
        piece: The longest part that both have in common, from the sample.
    """

    sample: Place
    passage: Passage
    share: float
    piece: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        sample, passage = self.sample, self.passage
        return {
            "task": sample.task,
            "split": sample.split,
            "file": sample.origin.path,
            "line": sample.origin.line,
            "benchmark": passage.benchmark,
            "problem": passage.problem,
            "part": passage.part,
            "share": round(self.share, 4),
            "piece": self.piece,
        }


class Detector:
    """Tells which samples hold how much of which passages.

    Args:
        passages: The texts of benchmarks.
        ngram: Words of an n-gram.
        threshold: Share of a passage's n-grams that a sample must hold to be told.
    """

    def __init__(self, passages: Sequence[Passage], ngram: int, threshold: float) -> None:
        self.threshold = threshold
        self._indexes = [
            Index(mine, view, length=ngram, common=_COMMON, fewest=_FEWEST)
            for view in (PROSE, CODE)
            if (mine := [passage for passage in passages if passage.view is view])
        ]
        found = {_place(passage) for index in self._indexes for passage in index.passages}
        self.too_short = sorted({_place(passage) for passage in passages} - found)
        """Benchmark, problem and part of the texts that are too short, or too common, to be looked for."""

    def hits(self, samples: Sequence[SampleText]) -> Iterator[Hit]:
        """What samples hold; of several forms of a prompt the one that is held most."""
        texts = [sample.text for sample in samples]
        for index in self._indexes:
            for match in _best(index, index.matches(texts, self.threshold)):
                sample = samples[match.text]
                piece = index.piece(sample.text, match.passage)
                yield Hit(sample.place, index.passages[match.passage], match.share, piece)


def _best(index: Index, matches: Sequence[Match]) -> list[Match]:
    best: dict[tuple[int, tuple[str, str, str]], Match] = {}
    for match in matches:
        key = match.text, _place(index.passages[match.passage])
        if key not in best or match.share > best[key].share:
            best[key] = match
    return list(best.values())


def _place(passage: Passage) -> tuple[str, str, str]:
    return passage.benchmark, passage.problem, passage.part
