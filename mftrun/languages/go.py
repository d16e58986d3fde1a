"""Go: compiler and linker of this machine, packages compiled beforehand, and a driver that runs the tests."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mftrun.languages.base import Missing, Program, Recipe
from mftrun.languages.prepared import asked, prepared
from mftrun.languages.tools import ENVIRONMENT, stamp, visible
from mftrun.languages.word import driver, has_said, mark
from mftrun.sandbox.base import BUILD, JOB, Limits, Outcome, Step

_DEBIAN = "/usr/share/gocode"
_TESTIFY = "github.com/stretchr/testify/assert"
_TEST = re.compile(r"^func\s+(Test\w*)\s*\(\s*\w+\s+\*\s*testing\.T\s*\)", re.MULTILINE)
_PACKAGES = "packages.cfg"
_ENVIRONMENT = MappingProxyType({**ENVIRONMENT, "GOMAXPROCS": "2"})  # few threads: a sandbox counts them all
_INSTALL = "apt-get install golang-go golang-github-stretchr-testify-dev"


@dataclass(frozen=True)
class Go:
    """Compiles a file of package main that holds tests, and runs them.

    Compiler and linker are called by themselves: they read packages that were compiled before the first
    program, and nothing that a program leaves behind. The program shares its process with the driver, in a
    package whose path it cannot know: unsafe pointers alone could lead it to the word.

    Attributes:
        compile_seconds: Wall-clock time that compiling and linking may take.
    """

    name = "go"
    memory_signs = ("runtime: out of memory", "runtime: cannot allocate memory", "cannot allocate memory")
    smallest = 'package main\n\nimport "testing"\n\nfunc TestNothing(t *testing.T) {}\n'

    compile_seconds: float = 60.0

    def missing(self) -> Missing | None:
        """See `Language.missing`."""
        if self._tools is None:
            return Missing("Go 1.18 or newer", _INSTALL)
        return None if self._testify else Missing("testify, a package of Go, in $GOPATH", _INSTALL)

    def prepare(self) -> None:
        """See `Language.prepare`."""
        _ = self._prepared

    def versions(self) -> Sequence[str]:
        """See `Language.versions`."""
        return ()  # in the name of the folder that is prepared

    def recipe(self, program: Program, nonce: str) -> Recipe:
        """See `Language.recipe`."""
        ours, word = self._prepared, f"driver_{mark(nonce)}"
        tests = _TEST.findall(program.source)
        return Recipe(
            files={
                "program.go": program.source,
                "guard.go": driver("guard.go"),
                "word.go": driver("word.go"),
                "main.go": _main(word, tests),
                "build.sh": _script(self._known.folder, ours, word),
            },
            compile=Step(
                ["/bin/sh", f"{JOB}/build.sh", JOB, BUILD],
                Limits(self.compile_seconds),
                {**_ENVIRONMENT, "GOROOT": str(self._known.root)},
                visible=visible((ours, self._known.root)),
                builds=True,
            ),
            run=Step([f"{BUILD}/program"], Limits(program.seconds), _ENVIRONMENT, stdin=nonce.encode()),
        )

    def has_passed(self, outcome: Outcome, nonce: str) -> bool:
        """See `Language.has_passed`."""
        return has_said(outcome, nonce)

    @cached_property
    def _tools(self) -> _Tools | None:
        if shutil.which("go") is None:
            return None
        told = json.loads(asked(["go", "env", "-json", "GOROOT", "GOTOOLDIR", "GOVERSION", "GOPATH"]))
        return _Tools(Path(told["GOROOT"]), Path(told["GOTOOLDIR"]), told["GOVERSION"], told["GOPATH"])

    @property
    def _known(self) -> _Tools:
        assert self._tools is not None, "missing() was not asked"
        return self._tools

    @cached_property
    def _testify(self) -> Path | None:
        places = (Path(folder) / "src" / _TESTIFY for folder in self._known.search().split(os.pathsep))
        return next((folder for folder in places if folder.is_dir()), None)

    @cached_property
    def _prepared(self) -> Path:
        known = self._known
        testify = stamp((self._testify or Path()) / "assertions.go")
        return prepared("go", [str(known.folder), known.version, known.search(), testify], self._prepare)

    def _prepare(self, folder: Path) -> None:
        """Compiles all of the standard library that a program may import, and testify."""
        cache = folder / "cache"
        found = asked(
            ["go", "list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}", "std", _TESTIFY],
            GO111MODULE="off", GOPATH=self._known.search(), CGO_ENABLED="0", GOCACHE=str(cache), GOFLAGS="",
        )  # fmt: skip
        (folder / "packages").mkdir()
        lines = [
            _kept(line, cache, folder / "packages") for line in found.splitlines() if not line.endswith("=")
        ]
        (folder / _PACKAGES).write_text("\n".join(lines) + "\n", encoding="utf-8")
        shutil.rmtree(cache)


class _Tools(NamedTuple):
    root: Path
    folder: Path
    version: str
    path: str

    def search(self) -> str:
        """Where packages are looked for."""
        return os.pathsep.join(filter(None, (self.path, _DEBIAN)))


def _kept(line: str, cache: Path, packages: Path) -> str:
    """A line of the list of packages; what lies in a cache that will go is moved."""
    name, _, file = line.partition("=")
    if Path(file).is_relative_to(cache):
        kept = f"{packages.name}/{name.replace('/', '.')}.a"
        shutil.move(file, packages.parent / kept)
        file = kept  # seen from the folder it is in, which gets another name
    return f"packagefile {name}={file}"


def _main(word: str, tests: Sequence[str]) -> str:
    listed = "\n".join(f'\t\t{{Name: "{name}", F: counted(program.{name})}},' for name in tests)
    used = driver("main.go") if tests else driver("main.go").replace('program "program"', '_ "program"')
    return used.replace("@WORD@", word).replace("@TESTS@", listed)


def _script(tools: Path, packages: Path, word: str) -> str:
    """Compiles word, program and driver, in this order, and links them; called with `JOB` and `BUILD`."""
    compile_ = f"{shlex.quote(str(tools / 'compile'))} -pack -importcfg"
    return f"""\
set -e
if grep -qE '//(go:linkname|go:cgo_)' "$1/program.go"; then
    echo "program.go: linkname and cgo directives are refused" >&2
    exit 1
fi
cd {shlex.quote(str(packages))}
{compile_} {_PACKAGES} -p {word} -o "$2/word.a" "$1/word.go"
{compile_} {_PACKAGES} -p program -o "$2/program.a" "$1/program.go" "$1/guard.go"
{{
    cat {_PACKAGES}
    echo "packagefile {word}=$2/word.a"
    echo "packagefile program=$2/program.a"
}} > "$2/all.cfg"
{compile_} "$2/all.cfg" -p main -o "$2/main.a" "$1/main.go"
{shlex.quote(str(tools / "link"))} -s -w -importcfg "$2/all.cfg" -o "$2/program" "$2/main.a"
"""
