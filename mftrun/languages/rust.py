"""Rust: rustc of this machine, crates compiled beforehand, and a driver that runs the tests."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mftrun.languages.base import Missing, Program, Recipe
from mftrun.languages.prepared import asked, prepared
from mftrun.languages.tools import ENVIRONMENT, stamp, visible, without
from mftrun.languages.word import driver, has_said, mark
from mftrun.sandbox.base import BUILD, JOB, Limits, Outcome, Step

_CRATES = ("rand", "regex", "md5")
_FOLDER = "MFTRUN_RUST_CRATES"
_DEBIAN = "/usr/share/cargo/registry"
_TOOLS = {"rustc": "apt-get install rustc", "cargo": "apt-get install cargo", "cc": "apt-get install gcc"}
_INSTALL = "apt-get install librust-rand-dev librust-regex-dev librust-md5-dev"
_MANIFEST = """\
[package]
name = "crates"
version = "0.0.0"
edition = "2021"
[dependencies]
rand = "*"
md5 = "*"
regex = { version = "*", default-features = false, features = ["std", "unicode"] }
[profile.dev]
debug = false
"""
_OPTIONS = (
    "--edition=2021",
    "--cfg=test",
    "-Awarnings",
    "-Aexplicit_builtin_cfgs_in_flags",
    "-Cstrip=symbols",
)
_TEST = re.compile(r"#\[test\]")
_TESTS_BEGIN = re.compile(r"mod\s+\w+\s*\{")
# A macro of the program that has one of these names is then ambiguous in its tests: it does not compile.
_MACROS = "use std::{assert, assert_eq, assert_ne, vec};"


@dataclass(frozen=True)
class Rust:
    """Compiles a file that holds tests, and runs those of its last module.

    The program shares its process with the driver, whose names it cannot know: unsafe code that searches
    the memory may find the word. Crates are compiled once for all programs, from the folder
    ``$MFTRUN_RUST_CRATES`` (as ``cargo vendor`` makes it), else from Debian's packages.

    Attributes:
        compile_seconds: Wall-clock time that compiling may take.
    """

    name = "rust"
    memory_signs = ("memory allocation of", "rustc-LLVM ERROR: out of memory")
    smallest = "fn main(){}\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn nothing() {}\n}\n"

    compile_seconds: float = 120.0

    def missing(self) -> Missing | None:
        """See `Language.missing`."""
        return without(_TOOLS) or next(
            (self._absent(name) for name in _CRATES if not self._found(name)), None
        )

    def prepare(self) -> None:
        """See `Language.prepare`."""
        _ = self._compiler

    def versions(self) -> Sequence[str]:
        """See `Language.versions`."""
        return ()  # in the name of the folder that is prepared

    def recipe(self, program: Program, nonce: str) -> Recipe:
        """See `Language.recipe`."""
        ours = mark(nonce)
        source, tests = _exported(program.source, ours)
        return Recipe(
            files={"program.rs": source, "driver.rs": _driver(ours, tests)},
            compile=Step(
                [*self._compiler, f"{JOB}/driver.rs", "-o", f"{BUILD}/program"],
                Limits(self.compile_seconds),
                ENVIRONMENT,
                visible=visible((self._prepared, self._root)),
                builds=True,
            ),
            run=Step([f"{BUILD}/program"], Limits(program.seconds), ENVIRONMENT, nonce.encode()),
        )

    def has_passed(self, outcome: Outcome, nonce: str) -> bool:
        """See `Language.has_passed`."""
        return has_said(outcome, nonce)

    @cached_property
    def _sources(self) -> Path:
        return Path(os.environ.get(_FOLDER) or _DEBIAN).expanduser().absolute()

    def _found(self, crate: str) -> list[str]:
        """Folders of a crate's versions: ``rand-0.8.5`` in Debian, ``rand`` where cargo has vendored it."""
        either = (crate, f"{crate}-[0-9]*")
        return sorted(
            str(path.parent) for name in either for path in self._sources.glob(f"{name}/Cargo.toml")
        )

    def _absent(self, crate: str) -> Missing:
        return Missing(f"the crate {crate} of Rust in {self._sources}", _INSTALL)

    @cached_property
    def _root(self) -> Path:
        """Where the compiler itself is: what is on the path may be rustup, which needs a home."""
        return Path(asked(["rustc", "--print", "sysroot"]))

    @cached_property
    def _prepared(self) -> Path:
        versions = [folder for name in _CRATES for folder in self._found(name)]
        stamps = [stamp(Path(folder, "Cargo.toml")) for folder in versions]
        key = [asked(["rustc", "-vV"]), *versions, *stamps, _MANIFEST]
        return prepared("rust", key, self._prepare)

    @cached_property
    def _compiler(self) -> list[str]:
        crates = self._prepared
        found = {name: next(crates.glob(f"lib{name}-*.rlib")) for name in _CRATES}
        given = (f"--extern={name}={file}" for name, file in found.items())
        return [str(self._root / "bin/rustc"), *_OPTIONS, f"-Ldependency={crates}", *given]

    def _prepare(self, folder: Path) -> None:
        work = folder / "work"
        (work / "src").mkdir(parents=True)
        (work / "src/lib.rs").touch()
        (work / "Cargo.toml").write_text(_MANIFEST, encoding="utf-8")
        replaced = ('source.crates-io.replace-with="here"', f'source.here.directory="{self._sources}"')
        asked(
            ["cargo", "build", "--offline", "--lib", "--target-dir", "target", *_each("--config", replaced)],
            cwd=work,
            CARGO_HOME=str(work / "home"),
        )
        for file in (work / "target/debug/deps").glob("*.rlib"):
            shutil.move(file, folder / file.name)
        shutil.rmtree(work)


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _exported(source: str, name: str) -> tuple[str, list[str]]:
    """A program, line by line as it was, whose last tests can be called from outside; their names there."""
    before, begin, tests = source.rpartition("#[cfg(test)]")
    names: list[str] = []

    def exported(_: re.Match[str]) -> str:
        names.append(f"test_{name}_{len(names)}")
        return f'#[export_name = "{names[-1]}"]'

    tests = _TESTS_BEGIN.sub(lambda match: f"{match[0]} {_MACROS}", _TEST.sub(exported, tests), count=1)
    return before + begin + tests, names


def _driver(name: str, tests: Sequence[str]) -> str:
    declared = "\n".join(f"    fn {name}();" for name in tests)
    filled = driver("driver.rs").replace("@DECLARATIONS@", declared).replace("@TESTS@", ", ".join(tests))
    return filled.replace("@ID@", name)
