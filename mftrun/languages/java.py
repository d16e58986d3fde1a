"""Java: a JDK of this machine, and a driver that calls the tests' ``main``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mftrun.languages.base import Missing, Program, Recipe
from mftrun.languages.prepared import asked, prepared
from mftrun.languages.tools import ENVIRONMENT, prefix, visible
from mftrun.languages.word import driver, has_said
from mftrun.sandbox.base import BUILD, JOB, Limits, Outcome, Step

# Few threads: a sandbox counts them all.
_ANY = ("-XX:+UseSerialGC", "-XX:ActiveProcessorCount=2", "-Dfile.encoding=UTF-8")
_COMPILER = (*_ANY, "-XX:TieredStopAtLevel=1", "-Xmx1g")
_ARCHIVE = "javac.jsa"
_SMALL = "public class Main { public static void main(String[] args) { System.out.println(); } }"


@dataclass(frozen=True)
class Java:
    """Compiles a file that holds ``Main``, and runs its tests.

    The program shares its process with the driver, and is kept from its word by the JVM alone: one that
    searches all of the memory by unsafe means may find it.

    Attributes:
        compile_seconds: Wall-clock time that compiling may take.
        heap_mb: Heap of a program, in MiB.
    """

    name = "java"
    memory_signs = ("java.lang.OutOfMemoryError", "insufficient memory for the Java Runtime")
    smallest = "public class Main {\n    public static void main(String[] arguments) {}\n}\n"

    compile_seconds: float = 60.0
    heap_mb: int = 2048

    def missing(self) -> Missing | None:
        """See `Language.missing`."""
        return None if self._home else Missing("a JDK (javac)", "apt-get install default-jdk-headless")

    def prepare(self) -> None:
        """See `Language.prepare`."""
        _ = self._prepared

    def versions(self) -> Sequence[str]:
        """See `Language.versions`."""
        return ()  # in the name of the folder that is prepared

    def recipe(self, program: Program, nonce: str) -> Recipe:
        """See `Language.recipe`."""
        ours, home = self._prepared, self._jdk
        shown = visible((ours, home))
        compiler = [f"-J{option}" for option in (f"-XX:SharedArchiveFile={ours / _ARCHIVE}", *_COMPILER)]
        return Recipe(
            files={"Main.java": program.source},
            compile=Step(
                [str(home / "bin/javac"), *compiler, *_javac(Path(BUILD)), f"{JOB}/Main.java"],
                Limits(self.compile_seconds),
                ENVIRONMENT,
                visible=shown,
                builds=True,
            ),
            run=Step(
                [
                    str(home / "bin/java"),
                    *_ANY,
                    f"-Xmx{self.heap_mb}m",
                    *_classes(ours),
                    "mftrun.Driver",
                    BUILD,
                ],
                Limits(program.seconds),
                ENVIRONMENT,
                stdin=nonce.encode(),
                visible=shown,
            ),
        )

    def has_passed(self, outcome: Outcome, nonce: str) -> bool:
        """See `Language.has_passed`."""
        return has_said(outcome, nonce)

    @cached_property
    def _home(self) -> Path | None:
        found = shutil.which("javac")
        return prefix(Path(found)) if found else None

    @property
    def _jdk(self) -> Path:
        assert self._home is not None, "missing() was not asked"
        return self._home

    @cached_property
    def _prepared(self) -> Path:
        """The driver, and what makes the compiler start in half of the time."""
        version = asked([str(self._jdk / "bin/java"), "--version"])
        return prepared("java", [str(self._jdk), version, driver("Driver.java"), *_COMPILER], self._prepare)

    def _prepare(self, folder: Path) -> None:
        _compile(self._jdk, folder, folder, "Driver.java", driver("Driver.java"))
        archive = f"-XX:ArchiveClassesAtExit={folder / _ARCHIVE}"
        _compile(self._jdk, folder, folder / "tried", "Main.java", _SMALL, archive)
        shutil.rmtree(folder / "tried")


def _javac(target: Path) -> list[str]:
    return ["-proc:none", "-nowarn", "-encoding", "UTF-8", "-d", str(target)]


def _classes(ours: Path) -> list[str]:
    return ["-cp", f"{ours}:{BUILD}"]  # the driver is ours whatever the program calls its classes


def _compile(jdk: Path, folder: Path, target: Path, name: str, text: str, *options: str) -> None:
    source = folder / name
    source.write_text(text, encoding="utf-8")
    given = [f"-J{option}" for option in (*options, *_COMPILER)]
    asked([str(jdk / "bin/javac"), *given, *_javac(target), str(source)])
    source.unlink()
