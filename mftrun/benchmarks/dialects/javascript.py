"""JavaScript."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mftrun.benchmarks.compat import Compat
from mftrun.benchmarks.cutting import END_OF_TEXT, Bracketed
from mftrun.benchmarks.dialects.base import Dialect, Imports

_NEEDED = Imports(("const ", "let ", "var "))


@dataclass(frozen=True)
class _JavaScript:
    """Nothing is needed."""

    def complete(self, code: str, before: str, repeats: bool) -> str:
        return _NEEDED.missing(code, before, repeats) + code

    def assemble(self, solution: str, fields: Mapping[str, Any], compat: Compat) -> str:
        return solution


JAVASCRIPT = Dialect(
    name="js",
    stop=(END_OF_TEXT,),
    seconds=10,
    block=Bracketed(),
    definition=r"^(?:async )?(?:const|let|var|function)\s+(\w+)\b",
    surroundings=_JavaScript(),
)
