"""C++: g++, with boost and openssl."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mftrun.languages.base import Missing, Program, Recipe
from mftrun.languages.cpp_kit import STANDARD, Kit, knows
from mftrun.languages.tools import ENVIRONMENT, stamp, visible, without
from mftrun.languages.word import has_said
from mftrun.sandbox.base import BUILD, JOB, Limits, Outcome, Step

_COMPILE = Limits(seconds=60)
_LIBRARIES = ("-lssl", "-lcrypto")
_VERSIONS = ("boost/version.hpp", "openssl/opensslv.h")
_HEADERS = {
    "boost": ("boost/any.hpp", "apt-get install libboost-dev"),
    "openssl": ("openssl/md5.h", "apt-get install libssl-dev"),
}
_MAIN = re.compile(r"^int\s+main\s*\(", re.MULTILINE)
_TESTS = "#undef NDEBUG\n"
_WORDS = """
auto bool break case char const continue default do double else extern false float for if int long
namespace noexcept operator return short signed sizeof static static_cast struct switch this throw true
typename unsigned using void while __assert_fail __builtin_expect __extension__ __PRETTY_FUNCTION__ main
"""
_MEANT = "".join(f"#undef {word}\n" for word in _WORDS.split())


@dataclass(frozen=True)
class Cpp:
    """C++ programs; see the driver for what they may not do.

    Args:
        kit: What is compiled once for all of them.
    """

    kit: Kit = field(default_factory=Kit)
    name = "cpp"
    memory_signs = ("instance of 'std::bad_alloc'", "cc1plus: out of memory", "virtual memory exhausted")
    smallest = "int main() { return 0; }\n"

    def missing(self) -> Missing | None:
        """See `Language.missing`."""
        return without({"g++": "apt-get install g++"}) or self._missing_header

    def prepare(self) -> None:
        """See `Language.prepare`."""
        _ = self.kit.folder

    def versions(self) -> Sequence[str]:
        """See `Language.versions`."""
        return self._versions

    def recipe(self, program: Program, nonce: str) -> Recipe:
        """See `Language.recipe`."""
        files = {"program.cpp": _with_its_tests(program.source)}
        run = Step((f"{BUILD}/program",), Limits(program.seconds), ENVIRONMENT, nonce.encode())
        return Recipe(files, self._compile(program.source), run)

    def has_passed(self, outcome: Outcome, nonce: str) -> bool:
        """See `Language.has_passed`."""
        return has_said(outcome, nonce)

    def _compile(self, source: str) -> Step:
        command = (
            *("g++", STANDARD, "-w", "-pipe", *self._linker, "-Wl,--as-needed", "-Wl,--wrap=main"),
            *self.kit.include(source),
            *(str(self.kit.driver), f"{JOB}/program.cpp", "-o", f"{BUILD}/program", *_LIBRARIES),
        )
        return Step(command, _COMPILE, ENVIRONMENT, visible=visible((self.kit.folder,)), builds=True)

    @cached_property
    def _versions(self) -> tuple[str, ...]:
        """Of libraries: the compiler's is in the name of the kit's folder."""
        return tuple(stamp(Path("/usr/include", file)) for file in _VERSIONS)

    @cached_property
    def _linker(self) -> tuple[str, ...]:
        return ("-fuse-ld=gold",) if shutil.which("ld.gold") else ()

    @cached_property
    def _missing_header(self) -> Missing | None:
        absent = (Missing(what, how) for what, (file, how) in _HEADERS.items() if not knows(file))
        return next(absent, None)


def _with_its_tests(source: str) -> str:
    """The source; its tests, from what they begin with or their ``main``, mean what they say.

    No macro of the program is left that is called as a word of the language, or as what an assertion uses.
    """
    found = list(_MAIN.finditer(source))
    if not found:
        return source
    start = found[-1].start()
    begin = source.rfind(_TESTS, 0, start)
    begin = start if begin < 0 else begin
    line = source.count("\n", 0, begin) + 1
    return f"{source[:begin]}{_MEANT}#line {line}\n{source[begin:]}"
