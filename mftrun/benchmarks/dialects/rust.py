"""Rust."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mftrun.benchmarks.compat import Compat
from mftrun.benchmarks.cutting import END_OF_TEXT, Bracketed
from mftrun.benchmarks.dialects.base import Dialect, Imports

_EMPTY_MAIN, _MAIN = "fn main(){}\n", "fn main()"
_USE = re.compile(r"^use [^;]{0,2000}+;\n?", re.MULTILINE)
_NEEDED = Imports(("use ",))


@dataclass(frozen=True)
class _Rust:
    """A ``main`` and the lines of the declaration that a solution lacks."""

    def complete(self, code: str, before: str, repeats: bool) -> str:
        before = before.replace(_EMPTY_MAIN, "") if _MAIN in code else before
        used = set(re.findall(r"\w+", " ".join(_USE.findall(before))))
        code = _USE.sub(lambda use: "" if _names(use[0]) <= used else use[0], code)
        return _NEEDED.missing(code, before, repeats) + code

    def assemble(self, solution: str, fields: Mapping[str, Any], compat: Compat) -> str:
        lines = (line.strip() for line in fields["declaration"].split("\n"))
        missing = "".join(f"{line}\n" for line in lines if _is_missing(line, solution))
        main = "" if _MAIN in solution else _EMPTY_MAIN
        return main + missing + _MAIN.join(solution.split(_MAIN)[:2])


def _names(use: str) -> set[str]:
    """The names that a line brings in."""
    return set(re.findall(r"\b(\w++)\s*+(?=[,;}])", use)) - {"self"}


def _is_missing(line: str, solution: str) -> bool:
    has_function = line.startswith("fn") and line.partition("(")[0] in solution
    return line not in solution and not has_function


RUST = Dialect(
    name="rust",
    stop=(END_OF_TEXT,),
    seconds=300,
    block=Bracketed(),
    definition=r"^[ \t]*(?:pub )?fn\s+(?!main\b)(\w+)\b",
    surroundings=_Rust(),
    before_declaration=_EMPTY_MAIN,
)
