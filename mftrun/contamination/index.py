"""Which of many passages a text holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mftrun.contamination.grams import Found, Grams, Hasher
from mftrun.contamination.passages import Passage
from mftrun.contamination.views import View
from mftrun.data.rows import offsets, ranges

_LONGEST = 200  # letters of a piece that is shown


class Match(NamedTuple):
    """A passage in a text.

    Attributes:
        text: Number of the text.
        passage: Number of the passage.
        share: Share of the passage's n-grams that the text holds.
    """

    text: int
    passage: int
    share: float


class Index:
    """The n-grams of passages that are looked at in the same way.

    N-grams that stand in several problems of a benchmark (imports, the frame of tests, usual phrases) tell
    nothing, and do not count; nor do those of what a passage holds besides.

    Args:
        passages: The passages.
        view: How they, and texts, are looked at.
        length: Words of an n-gram.
        common: N-grams in more problems of one benchmark than these do not count.
        fewest: Passages with fewer n-grams that count are not looked for.
    """

    def __init__(
        self, passages: Sequence[Passage], view: View, *, length: int, common: int, fewest: int
    ) -> None:
        words = [view.words(passage.text) for passage in passages]
        self._view, self._length = view, length
        self._hasher = Hasher((word for one in words for word in one), length)
        found = [self._hasher.grams([one]) for one in words]
        known = [np.unique(self._hasher.grams([view.words(passage.known)]).gram) for passage in passages]
        own = [np.setdiff1d(one.gram, theirs) for one, theirs in zip(found, known, strict=True)]
        dropped = _common(passages, own, common)
        kept = [
            _kept(one, len(mine), (theirs, dropped), length)
            for one, mine, theirs in zip(found, words, known, strict=True)
        ]
        large = [number for number, one in enumerate(kept) if len(one) >= fewest]
        self.passages = [passages[number] for number in large]
        self._grams = [kept[number] for number in large]
        self._sizes = np.array([len(one) for one in self._grams], np.int64)
        self._build()

    def _build(self) -> None:
        owner = np.repeat(np.arange(len(self._grams)), self._sizes)
        entries = _joined(self._grams)
        order = np.argsort(entries, kind="stable")
        self._owner = owner[order]
        self._keys, counts = np.unique(entries, return_counts=True)
        self._first, self._counts = offsets(counts)[:-1], counts.astype(np.int64)

    def matches(self, texts: Sequence[str], threshold: float) -> list[Match]:
        """The passages of which texts hold at least this share, by text and passage."""
        found = self._hasher.grams([self._view.words(text) for text in texts])
        key, is_known = _looked_up(self._keys, found.gram)
        # An n-gram counts once for a text, however often it stands there.
        pairs = np.unique(found.text[is_known] * len(self._keys) + key[is_known])
        text, key = np.divmod(pairs, max(1, len(self._keys)))
        counts = self._counts[key]
        passage = self._owner[ranges(self._first[key], counts)]
        both, held = np.unique(np.repeat(text, counts) * len(self._sizes) + passage, return_counts=True)
        text, passage = np.divmod(both, max(1, len(self._sizes)))
        share = held / self._sizes[passage]
        return [
            Match(*match)
            for match in zip(text.tolist(), passage.tolist(), share.tolist(), strict=True)
            if match[2] >= threshold
        ]

    def piece(self, text: str, passage: int) -> str:
        """The longest part of a text that a passage holds, shortened.

        Args:
            text: The text.
            passage: Number of a passage that it matches.
        """
        found = self._hasher.grams([self._view.words(text)])
        _, is_mine = _looked_up(self._grams[passage], found.gram)
        first, last = _longest_run(found.word[is_mine])
        piece = self._view.piece(text, first, last + self._length - 1)
        return piece if len(piece) <= _LONGEST else f"{piece[:_LONGEST]} …"


def _kept(found: Found, words: int, dropped: Sequence[Grams], length: int) -> Grams:
    """The n-grams of a text that count: none that is dropped, and none that reaches into a dropped end.

    So the first words of a program do not count with the imports before them, which may be missing elsewhere.
    """
    is_dropped = np.any([_looked_up(some, found.gram)[1] for some in dropped], axis=0)
    covered = np.zeros(words, np.bool_)
    covered[(found.word[is_dropped][:, None] + np.arange(length)).ravel()] = True
    own = np.flatnonzero(~covered)
    begin, end = (int(own[0]), int(own[-1]) + 1) if len(own) else (0, 0)
    return np.unique(found.gram[~is_dropped & (found.word >= begin) & (found.word + length <= end)])


def _common(passages: Sequence[Passage], grams: Sequence[Grams], most: int) -> Grams:
    """The n-grams that stand in more than `most` problems of some benchmark."""
    problems: dict[str, dict[str, list[Grams]]] = {}
    for passage, mine in zip(passages, grams, strict=True):
        problems.setdefault(passage.benchmark, {}).setdefault(passage.problem, []).append(mine)
    return np.unique(_joined(_frequent(benchmark.values(), most) for benchmark in problems.values()))


def _frequent(problems: Iterable[Sequence[Grams]], most: int) -> Grams:
    gram, counts = np.unique(_joined(np.unique(_joined(one)) for one in problems), return_counts=True)
    return gram[counts > most]


def _joined(grams: Iterable[Grams]) -> Grams:
    return np.concatenate([np.zeros(0, np.uint64), *grams])


def _looked_up(keys: Grams, grams: Grams) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The place of each n-gram in sorted keys, and whether it is there."""
    if not len(keys):
        return np.zeros(len(grams), np.int64), np.zeros(len(grams), np.bool_)
    place = np.minimum(np.searchsorted(keys, grams), len(keys) - 1)
    return place, keys[place] == grams


def _longest_run(numbers: npt.NDArray[np.int64]) -> tuple[int, int]:
    """The first and the last of the longest run of numbers that follow each other."""
    borders = [0, *(1 + np.flatnonzero(np.diff(numbers) > 1)).tolist(), len(numbers)]
    first, end = max(pairwise(borders), key=lambda run: run[1] - run[0])
    return int(numbers[first]), int(numbers[end - 1])
