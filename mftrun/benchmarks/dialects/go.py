"""Go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mftrun.benchmarks.compat import Compat
from mftrun.benchmarks.cutting import END_OF_TEXT, Bracketed
from mftrun.benchmarks.dialects.base import Dialect
from mftrun.benchmarks.dialects.lexing import GO as LEXED
from mftrun.benchmarks.dialects.lexing import without

_PACKAGES = (
    *("math", "strings", "fmt", "strconv", "time", "bytes", "regexp", "sort"),
    *("math/rand", "crypto/md5"),
)
_IMPORT = re.compile(r'^import\s*(?:\([^)]*\)|"[^"]*")', re.MULTILINE)
_DECLARED = re.compile(r"(?:^|;)[ \t]*import\b\s*+(?:\([^)]*+|[^\n;]*+)", re.MULTILINE)
_NAMED = re.compile(r"""(?<![\w.])(?:([\w.]++)[ \t]*+)?["`]([^"`\n]*+)["`]""")
_FUNCTION = re.compile(r"^func\s+(\w+)\s*\(", re.MULTILINE)
_PACKAGE = "package main"


@dataclass(frozen=True)
class _Go:
    """Imports of the tests come first, then those of packages that are used without having been imported."""

    def complete(self, code: str, before: str, repeats: bool) -> str:
        # A function that stands alone brings its imports, or they are found in assembly.
        helpers = _IMPORT.sub("", before).strip()
        return code if repeats else f"{code}\n\n{helpers}".rstrip()

    def assemble(self, solution: str, fields: Mapping[str, Any], compat: Compat) -> str:
        if not compat.go_helpers_left_out:
            solution += _missing_helpers(solution, fields["prompt"])
        setup = _without_imports_of(solution, fields["test_setup"] + "\n")
        needed = _missing(f"{setup}{solution}\n{fields['test']}")
        if compat.bare_go_imports:
            needed = [_last(package) for package in needed]
        lines = "".join(f'    "{package}"\n' for package in needed)
        if _PACKAGE in setup:
            solution = solution.replace(_PACKAGE, "")
        return setup + (f"import (\n{lines})\n" if needed else "") + solution


def _missing_helpers(solution: str, prompt: str) -> str:
    """What the prompt defines before its last function, unless the solution has it."""
    defined = list(_FUNCTION.finditer(prompt))
    if {one[1] for one in defined[:-1]} <= {one[1] for one in _FUNCTION.finditer(solution)}:
        return ""
    return "\n\n" + _IMPORT.sub("", prompt[: defined[-1].start()]).strip() + "\n"


def _without_imports_of(solution: str, setup: str) -> str:
    """The head of the tests without what the solution imports, too."""
    for path in _imported(setup) & _imported(solution):
        setup = setup.replace(f'"{path}"', "")
    return setup


def _imported(program: str) -> set[str]:
    """What a program imports under its own name; texts and comments that look like it do not count."""
    bare = without(program, LEXED, "text", "comment")
    said = without(program, LEXED, "comment")
    found = [name for one in _DECLARED.finditer(bare) for name in _NAMED.findall(said, *one.span())]
    return {path for name, path in found if name in ("", "import", _last(path))}


def _missing(program: str) -> list[str]:
    """Packages that are used, outside of texts and comments, and not imported."""
    bare, imported = without(program, LEXED, "text", "comment"), _imported(program)
    used = set(re.findall(r"(?<![\w.])(\w++)\.[A-Z]", bare))
    return [one for one in _PACKAGES if _last(one) in used and one not in imported]


def _last(package: str) -> str:
    return package.rpartition("/")[2]


GO = Dialect(
    name="go",
    stop=("\n//", "\nfunc main(", "\nfunc", END_OF_TEXT),
    stops_in_words=("struct",),
    seconds=20,
    block=Bracketed(),
    definition=_FUNCTION.pattern,
    surroundings=_Go(),
    lexed=LEXED,
    fields=("test_setup",),
)
