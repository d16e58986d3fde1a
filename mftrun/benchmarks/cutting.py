"""Where a solution ends in what a model wrote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

END_OF_TEXT = "<|endoftext|>"
"""Ends an answer in every language."""


class Block(Protocol):
    """How the block that an answer goes on with is recognised."""

    def goes_on(self, text: str) -> bool:
        """Whether a text goes on with the code before it, rather than talks or begins anew."""

    def cut(self, text: str) -> str:
        """A text up to the end of its block."""


def before_stop(text: str, stop: Iterable[str]) -> str:
    """A text up to the first of the stop texts."""
    return text[: min((at for one in stop if (at := text.find(one)) >= 0), default=len(text))]


@dataclass(frozen=True)
class Indented:
    """A block that ends before the first line that is not indented."""

    def goes_on(self, text: str) -> bool:
        """Whether the first line is indented."""
        return next((_is_inside(line) for line in text.split("\n") if line.strip()), False)

    def cut(self, text: str) -> str:
        """All lines before the first that is not indented."""
        lines = text.split("\n")
        outside = (number for number, line in enumerate(lines) if not _is_inside(line))
        return "\n".join(lines[: next(outside, len(lines))])


@dataclass(frozen=True)
class Bracketed:
    """A block that ends where all brackets are closed.

    Brackets in texts and comments count as well.

    Args:
        open: Brackets that are open before it.
    """

    open: int = 1

    def goes_on(self, text: str) -> bool:
        """Whether the brackets are closed in it."""
        return self._end(text) is not None

    def cut(self, text: str) -> str:
        """Up to the bracket that closes the first one, else up to the last that closes any."""
        end = self._end(text)
        return self._unfinished(text) if end is None else text[:end]

    def _end(self, text: str) -> int | None:
        depth = self.open
        for number, character in enumerate(text):
            depth += (character == "{") - (character == "}")
            if depth == 0:
                return number + 1
        return None

    def _unfinished(self, text: str) -> str:
        return _up_to_last_bracket(text)


@dataclass(frozen=True)
class InClass(Bracketed):
    """A method that ends with its class; a ``main`` behind it is cut, and the end of the class added."""

    open: int = 2

    def _unfinished(self, text: str) -> str:
        before, main, _ = text.partition("public static void main")
        text = _up_to_last_bracket(before + "}" if main else text)
        return text + "\n}" if text.count("{") - 1 == text.count("}") else text


def _is_inside(line: str) -> bool:
    return not line.strip() or line[0] in " \t"


def _up_to_last_bracket(text: str) -> str:
    return text[: text.rfind("}") + 1] if "}" in text else text
