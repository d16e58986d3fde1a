"""What the text of a program is in a language."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from mftrun.benchmarks.compat import Compat
from mftrun.benchmarks.cutting import Block
from mftrun.benchmarks.dialects.lexing import BRACKETED, without


class Surroundings(Protocol):
    """What programs of a language need besides a solution."""

    def complete(self, code: str, before: str, repeats: bool) -> str:
        """A whole program of a function that stands alone.

        Args:
            code: Defines the function.
            before: What stands before its definition in the prompt: imports, helpers, comments.
            repeats: Whether it defines helpers of the prompt, too.
        """

    def assemble(self, solution: str, fields: Mapping[str, Any], compat: Compat) -> str:
        """A solution with what comes before it, ready for its tests to follow.

        Args:
            solution: The solution.
            fields: Of its problem.
            compat: Which faults to repeat.
        """


class Definition(NamedTuple):
    """A function in code.

    Attributes:
        name: Its name.
        before: What stands before it.
    """

    name: str
    before: str


@dataclass(frozen=True)
class Dialect:
    """How programs are written in a language.

    Args:
        name: The language's key.
        stop: Texts that end an answer.
        seconds: Wall-clock time of a run.
        block: Where an answer ends.
        definition: Regular expression of a function's definition, from the start of its line; its group is
            the name. It is asked of whatever a model writes, and must not be slow where there is no match.
        surroundings: What programs need besides.
        lexed: What texts and comments look like.
        before_declaration: What stands before a declaration that has no description.
        fields: Fields that problems have in this language alone.
        stops_in_words: Texts that ended an answer in the first evaluation, though right code has them.
    """

    name: str
    stop: tuple[str, ...]
    seconds: float
    block: Block
    definition: str
    surroundings: Surroundings
    lexed: re.Pattern[str] = BRACKETED
    before_declaration: str = ""
    fields: tuple[str, ...] = ()
    stops_in_words: tuple[str, ...] = ()

    def stops(self, compat: Compat) -> tuple[str, ...]:
        """Texts that end an answer.

        Args:
            compat: Which faults to repeat.
        """
        return (*self.stop, *self.stops_in_words) if compat.stops_in_words else self.stop

    def defined(self, name: str, code: str) -> bool:
        """Whether code defines a function."""
        return any(found[1] == name for found in self._defined(code))

    def definitions(self, code: str) -> list[Definition]:
        """All functions that code defines, outside of comments."""
        return [Definition(one[1], code[: one.start()]) for one in self._defined(code)]

    def _defined(self, code: str) -> Iterator[re.Match[str]]:
        return re.finditer(self.definition, without(code, self.lexed, "comment"), re.MULTILINE)


@dataclass(frozen=True)
class Imports:
    """The part of a prompt that a function standing alone still needs.

    Args:
        words: What lines that import begin with.
    """

    words: tuple[str, ...]

    def missing(self, code: str, before: str, repeats: bool) -> str:
        """What to put in front of a function, without importing or defining twice; see `complete`."""
        said = {_spaceless(line) for line in code.split("\n")}
        return "".join(
            f"{line}\n"
            for line in before.rstrip().split("\n")
            if (_spaceless(line) not in said if line.startswith(self.words) else not repeats)
        )


def _spaceless(line: str) -> str:
    return "".join(line.split())
