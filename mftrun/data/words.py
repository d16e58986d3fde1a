r"""Tokens of text, word by word: only words not met before go through the Rust tokenizer.

A byte-level BPE tokenizer cuts text into words with a regular expression and tokenizes each word by itself.
The cutting takes most of its time, and most words of a data set are met again and again. Here Python cuts,
and a table remembers the tokens of each word. This is exact, or it is not done: it serves only tokenizers
whose expression is known here (`_pattern`), and only text whose characters both regex engines class alike.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Ids = npt.NDArray[np.int32]

MOST_WORDS = 200_000
"""A table that has grown beyond this starts again: memory stays bounded whatever the text."""

_LONGEST_WORD = 64  # characters; longer ones are rare and not worth their place in the table
_LONG_TEXT = 1_000_000  # characters; the words of longer texts are not held all at once, which takes longer
_MOST_ADDED = 64  # added tokens to look for in each text; tokenizers with more go the plain way


class _Pattern(NamedTuple):
    """One expression twice: as the tokenizer has it, and an equal one for ASCII that Python runs faster."""

    any_text: str
    ascii_text: str


_GPT2 = _Pattern(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r" ?+[A-Za-z]++| ?+[0-9]++|'(?:[stmd]|re|ve|ll)| ?+[^\sA-Za-z0-9]++|\s+(?!\S)|\s++",
)
_LLAMA3 = _Pattern(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?:[stmdSTMD]|[rR][eE]|[vV][eE]|[lL][lL])|[^\r\nA-Za-z0-9]?+[A-Za-z]++|[0-9]{1,3}"
    r"| ?+[^\sA-Za-z0-9]++[\r\n]*+|\s*[\r\n]+|\s+(?!\S)|\s++",
)
_QWEN2 = _Pattern(
    _LLAMA3.any_text.replace(r"\p{N}{1,3}", r"\p{N}"), _LLAMA3.ascii_text.replace("[0-9]{1,3}", "[0-9]")
)
_SPLITS = {pattern.any_text: pattern for pattern in (_LLAMA3, _QWEN2)}


class _Table(dict[str, bytes]):
    """Tokens of words met so far, as the bytes of int32 ids; others are tokenized when they are asked for.

    Args:
        model: The Rust model of a byte-level BPE tokenizer.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._tokenize = model.tokenize
        self._letters = str.maketrans(_byte_letters())

    def __missing__(self, word: str) -> bytes:
        if len(self) >= MOST_WORDS:
            self.clear()
        tokens = self._tokenize(word.encode().decode("latin-1").translate(self._letters))
        ids = array("i", [token.id for token in tokens]).tobytes()
        if len(word) <= _LONGEST_WORD:
            self[word] = ids
        return ids


class WordTokenizer:
    """Tokens of text by way of its words; made by `word_tokenizer`.

    Args:
        tokenizer: The Rust tokenizer.
        pattern: How it cuts text into words.
        known: Added tokens that it would find in text.
    """

    def __init__(self, tokenizer: Tokenizer, pattern: _Pattern, known: Sequence[str]) -> None:
        import regex  # type: ignore[import-untyped]

        self._arguments = (tokenizer, pattern, known)
        self._is_composed = tokenizer.normalizer is not None
        self._known = known
        self._cutter = tokenizer.pre_tokenizer
        self._any_text = regex.compile(pattern.any_text)
        self._ascii_text = re.compile(pattern.ascii_text, re.ASCII)
        self._table = _Table(tokenizer.model)
        self._alike: set[str] = set()
        self._unlike: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return WordTokenizer, self._arguments

    def ids(self, text: str) -> Ids | None:
        """Tokens of a text, int32[n]; None for one that must go the plain way."""
        words = self._cut(text) if text else None
        if words is None:
            return None
        return np.frombuffer(b"".join(map(self._table.__getitem__, words)), dtype=np.int32)

    def agrees(self) -> bool:
        """Whether both engines cut ASCII alike: all its characters, and what may stand around them."""
        triples = map("".join, product("aZ1's.-_ \n\r\t\v\x1c\0l", repeat=3))
        contractions = ["'sa'ta'rea'vea'ma'lla'da 's", "'Sa'Ta'REa'VEa'Ma'LLa'Da 'rEa'Ve"]
        texts = ["".join(triples), "".join(map(_around, map(chr, range(128)))), *contractions]
        spans = [[match.span() for match in self._ascii_text.finditer(text)] for text in texts]
        return spans == [self._rust_spans(text) for text in texts]

    def _cut(self, text: str) -> Iterable[str] | None:
        if any(token in text for token in self._known):
            return None
        if text.isascii():
            return _words(self._ascii_text, text)
        if not self._all_alike(text):
            return None
        if self._is_composed and not unicodedata.is_normalized("NFC", text):
            return None
        return _words(self._any_text, text)

    def _all_alike(self, text: str) -> bool:
        characters = set(text)
        if characters <= self._alike:
            return True
        for character in characters - self._alike - self._unlike:
            (self._alike if self._is_alike(character) else self._unlike).add(character)
        return characters <= self._alike

    def _is_alike(self, character: str) -> bool:
        """Whether Python and Rust class it alike: the versions of Unicode that they know may differ."""
        if unicodedata.category(character) in ("Cn", "Cs"):
            return False
        text = _around(character)
        return [match.span() for match in self._any_text.finditer(text)] == self._rust_spans(text)

    def _rust_spans(self, text: str) -> list[tuple[int, int]]:
        return [span for _, span in self._cutter.pre_tokenize_str(text)]


def _words(expression: Any, text: str) -> Iterable[str]:
    if len(text) < _LONG_TEXT:
        words: list[str] = expression.findall(text)
        return words
    return (match.group() for match in expression.finditer(text))


def word_tokenizer(tokenizer: Tokenizer, state: Mapping[str, Any]) -> WordTokenizer | None:
    """Builds the fast way for a tokenizer that reads special tokens as text, or None where it is not exact.

    Args:
        tokenizer: The Rust tokenizer.
        state: Its state as its JSON has it; the added tokens that are not special there are found in text.
    """
    pattern, known = _pattern(state), _known_in_text(state)
    if pattern is None or len(known) > _MOST_ADDED or not _is_plain_bpe(state):
        return None
    made = WordTokenizer(tokenizer, pattern, known)
    return made if made.agrees() else None


def _is_plain_bpe(state: Mapping[str, Any]) -> bool:
    model = state["model"]
    return (
        model.get("type") == "BPE"
        and not model.get("dropout")
        and not state.get("truncation")
        and not state.get("padding")
        and state["normalizer"] in (None, {"type": "NFC"})
    )


def _known_in_text(state: Mapping[str, Any]) -> list[str]:
    plain = [token["content"] for token in state["added_tokens"] if not token["special"] and token["content"]]
    return list(dict.fromkeys([*plain, *(unicodedata.normalize("NFC", token) for token in plain)]))


def _pattern(state: Mapping[str, Any]) -> _Pattern | None:
    step = state["pre_tokenizer"]
    if not isinstance(step, dict):
        return None
    if step.get("type") == "ByteLevel" and step["use_regex"] and not step["add_prefix_space"]:
        return _GPT2
    steps = step.get("pretokenizers") if step.get("type") == "Sequence" else None
    if not steps or len(steps) != 2 or not _is_bytes(steps[1]) or not _is_isolating(steps[0]):
        return None
    return _SPLITS.get(steps[0]["pattern"].get("Regex"))


def _is_bytes(step: Mapping[str, Any]) -> bool:
    return step.get("type") == "ByteLevel" and not step["use_regex"] and not step["add_prefix_space"]


def _is_isolating(step: Mapping[str, Any]) -> bool:
    return step.get("type") == "Split" and step["behavior"] == "Isolated" and not step["invert"]


def _around(character: str) -> str:
    c = character
    return f"a{c}a1{c}1 {c} {c}a {c}1 {c}. '{c}a ,{c}{c}\n{c}\n\n {c}  {c}\r\n"


def _byte_letters() -> dict[str, str]:
    """The letter by which byte-level BPE writes each byte: itself if it can be seen, else one above 255."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    unseen = sorted(set(range(256)).difference(seen))
    letters = [(byte, byte) for byte in seen] + [(byte, 256 + place) for place, byte in enumerate(unseen)]
    return {chr(byte): chr(letter) for byte, letter in letters}
