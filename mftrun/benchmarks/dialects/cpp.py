"""C++."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mftrun.benchmarks.compat import Compat
from mftrun.benchmarks.cutting import END_OF_TEXT, Bracketed
from mftrun.benchmarks.dialects.base import Dialect, Imports

_HEADERS = (
    *("stdlib.h", "algorithm", "cmath", "math.h", "numeric", "stdio.h", "vector", "set", "map", "queue"),
    *("stack", "list", "deque", "boost/any.hpp", "string", "climits", "cstring", "iostream", "sstream"),
    "fstream",
)
_NEEDED = Imports(("#include", "using "))


@dataclass(frozen=True)
class _Cpp:
    """Headers that solutions take for granted; the tests bring ``main``."""

    def complete(self, code: str, before: str, repeats: bool) -> str:
        return _NEEDED.missing(code, before, repeats) + code

    def assemble(self, solution: str, fields: Mapping[str, Any], compat: Compat) -> str:
        head = [f"#include<{header}>" for header in _HEADERS]
        return "\n".join([*head, "using namespace std;", solution.partition("int main")[0]]).strip()


CPP = Dialect(
    name="cpp",
    stop=(END_OF_TEXT,),
    seconds=60,
    block=Bracketed(),
    definition=r"^[^\n()=;]*[\w>\]&*]\s+[&*]*(?!(?:if|for|while|switch)\b)(\w+)\s*\([^;{}]{0,2000}+\{",
    surroundings=_Cpp(),
)
