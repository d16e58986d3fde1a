"""N-grams of words as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Grams = npt.NDArray[np.uint64]
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word of an n-gram is lost on the way


class Found(NamedTuple):
    """N-grams of several texts.

    Attributes:
        gram: uint64[G].
        text: int64[G], the text that each is in.
        word: int64[G], the word that each begins with, from the start of its text.
    """

    gram: Grams
    text: npt.NDArray[np.int64]
    word: npt.NDArray[np.int64]


class Hasher:
    """Turns n-grams of known words into numbers of 64 bits, each word into a random one.

    Args:
        words: The words that are known; n-grams with others are passed over.
        length: Words of an n-gram.
    """

    def __init__(self, words: Iterable[str], length: int) -> None:
        self._ids = {word: number for number, word in enumerate(dict.fromkeys(words), 1)}
        random = np.random.default_rng(0)
        self._codes = random.integers(0, 2**64, len(self._ids) + 1, np.uint64)
        self._length = length

    def grams(self, texts: Sequence[Sequence[str]]) -> Found:
        """The n-grams of texts, which are given as their words; those that stand in a text twice, twice."""
        get = self._ids.get
        lengths = np.array([len(words) for words in texts], np.int64)
        ids = np.fromiter((get(word, 0) for words in texts for word in words), np.int64, int(lengths.sum()))
        starts = np.cumsum(lengths) - lengths
        text = np.repeat(np.arange(len(texts)), lengths)
        ends = (starts + lengths)[text]
        place = np.arange(len(ids))
        unknown = np.concatenate([[0], np.cumsum(ids == 0)])
        last = np.minimum(place + self._length, len(ids))
        place = place[(place + self._length <= ends) & (unknown[last] == unknown[place])]
        return Found(self._hashed(ids, place), text[place], place - starts[text[place]])

    def _hashed(self, ids: npt.NDArray[np.int64], place: npt.NDArray[np.int64]) -> Grams:
        gram = np.zeros(len(place), np.uint64)
        for offset in range(self._length):
            gram = gram * _FACTOR + self._codes[ids[place + offset]]
        return gram
