"""What is compiled once for all C++ programs: the headers that all of them include, and the driver."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mftrun.languages.prepared import asked, prepared
from mftrun.languages.word import driver

STANDARD = "-std=c++17"
_DRIVER = "cpp_driver.cpp"
# The driver calls nothing that a program could define, nor does the compiler add such calls.
_ALONE = ("-O1", "-ffreestanding", "-fno-stack-protector", "-fno-tree-loop-distribute-patterns")
_INCLUDED = re.compile(r"\s*#\s*include\s*<([^>]+)>")
_HEADERS = (
    *("stdlib.h", "algorithm", "cmath", "math.h", "numeric", "stdio.h", "vector", "set", "map", "queue"),
    *("stack", "list", "deque", "boost/any.hpp", "string", "climits", "cstring", "iostream", "sstream"),
    "fstream",
)


@dataclass(frozen=True)
class Kit:
    """Compiled headers and the compiled driver, in a folder that is kept, and that programs cannot write in.

    Args:
        headers: What is compiled. A program that begins with all of them is compiled on top of that; any
            other one is compiled as it stands.
    """

    headers: Sequence[str] = _HEADERS

    @property
    def driver(self) -> Path:
        """The driver, to be linked."""
        return self.folder / "driver.o"

    def include(self, source: str) -> tuple[str, ...]:
        """What makes the compiler use the headers; nothing where a program does not begin with them."""
        return ("-include", str(self.folder / "all.hpp")) if set(self.headers) <= _begins_with(source) else ()

    @cached_property
    def folder(self) -> Path:
        """Where it is.

        Raises:
            MftrunError: It cannot be compiled; says what the compiler says.
        """
        version = subprocess.run(["g++", "-v"], capture_output=True, text=True, check=False).stderr
        return prepared("cpp", (version, STANDARD, self._text, driver(_DRIVER), *_ALONE), self._fill)

    @property
    def _text(self) -> str:
        return "".join(f"#include <{header}>\n" for header in self.headers)

    def _fill(self, folder: Path) -> None:
        header, source = folder / "all.hpp", folder / _DRIVER
        header.write_text(self._text)
        source.write_text(driver(_DRIVER))
        # The compiler takes the compiled header wherever it lies, but only if it is named as it is found.
        asked(["g++", STANDARD, "-w", "-x", "c++-header", str(header), "-o", f"{header}.gch"])
        asked(["g++", STANDARD, "-w", *_ALONE, "-c", str(source), "-o", str(folder / "driver.o")])


def knows(header: str) -> bool:
    """Whether the compiler finds a header."""
    text = f"#include <{header}>\n"
    command = ["g++", "-E", "-x", "c++", "-"]
    return not subprocess.run(command, input=text, capture_output=True, text=True, check=False).returncode


def _begins_with(source: str) -> set[str]:
    """Headers that stand above all else."""
    found: set[str] = set()
    for line in source.splitlines():
        if included := _INCLUDED.match(line):
            found.add(included[1])
        elif line.strip():
            break
    return found
