"""Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mftrun.benchmarks.compat import Compat
from mftrun.benchmarks.cutting import END_OF_TEXT, Indented
from mftrun.benchmarks.dialects.base import Dialect, Imports
from mftrun.benchmarks.dialects.lexing import PYTHON as LEXED

_IMPORTS = (
    *("import math", "import re", "import sys", "import copy", "import datetime", "import itertools"),
    *("import collections", "import heapq", "import statistics", "import functools", "import hashlib"),
    *("import numpy", "import numpy as np", "import string"),
    *("from typing import *", "from collections import *"),
)
_STRAY = '\n    "'
_NEEDED = Imports(("import ", "from "))


@dataclass(frozen=True)
class _Python:
    """Imports that solutions take for granted."""

    def complete(self, code: str, before: str, repeats: bool) -> str:
        return _NEEDED.missing(code, before, repeats) + code

    def assemble(self, solution: str, fields: Mapping[str, Any], compat: Compat) -> str:
        declaration = fields["declaration"].rstrip()
        if declaration.endswith(_STRAY) and solution.startswith(declaration) and not compat.stray_quote_kept:
            solution = declaration.removesuffix(_STRAY) + solution.removeprefix(declaration)
        return "\n".join((*_IMPORTS, solution)).strip()


PYTHON = Dialect(
    name="python",
    stop=("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\nassert", END_OF_TEXT),
    seconds=10,
    block=Indented(),
    definition=r"^(?:async )?def[ \t]+(\w+)\b",
    surroundings=_Python(),
    lexed=LEXED,
)
