"""Java."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mftrun.benchmarks.compat import Compat
from mftrun.benchmarks.cutting import END_OF_TEXT, Bracketed, InClass
from mftrun.benchmarks.dialects.base import Dialect

_CLASS, _IMPORT = "class Solution", "import "
_EMPTY_MAIN = "public class Main {\n    }"


@dataclass(frozen=True)
class _Java:
    """A solution is a method of the class ``Solution``; the tests bring the class ``Main``."""

    def complete(self, code: str, before: str, repeats: bool) -> str:
        if _CLASS not in code:
            return f"{before.rstrip()}\n{code}\n}}"
        found = [line.strip() for line in code.split("\n") if line.startswith(_IMPORT)]
        needed = [line.strip() for line in before.split("\n") if line.startswith(_IMPORT)]
        return "\n".join([*dict.fromkeys(needed + found), _class_alone(code)])

    def assemble(self, solution: str, fields: Mapping[str, Any], compat: Compat) -> str:
        return solution.replace(_EMPTY_MAIN, "").strip()


def _class_alone(code: str) -> str:
    """The class without its modifiers, and without what stands around it."""
    head, bracket, rest = code[code.index(_CLASS) :].partition("{")
    return head + bracket + Bracketed().cut(rest)


JAVA = Dialect(
    name="java",
    stop=(END_OF_TEXT,),
    seconds=10,
    block=InClass(),
    definition=r"^[^\n()=;]*[\w>\]]\s+(?!(?:if|for|while|switch)\b)(\w+)\s*\([^;{}]{0,2000}+\{",
    surroundings=_Java(),
)
