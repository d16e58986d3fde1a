"""What is known of a programming language: its tools, and how a program is compiled, run and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from mftrun.sandbox.base import Outcome, Step


class Verdict(Enum):
    """What became of a program."""

    PASSED = "passed"
    FAILED = "failed"
    COMPILE_ERROR = "compile error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output limit"
    SANDBOX_ERROR = "sandbox error"


class Missing(NamedTuple):
    """A tool that is not here.

    Attributes:
        what: Its name.
        install: The command that installs it.
    """

    what: str
    install: str


@dataclass(frozen=True)
class Program:
    """A solution with its tests, ready to be compiled.

    Attributes:
        language: A key of the languages.
        source: Its text.
        seconds: Wall-clock time that its run may take.
    """

    language: str
    source: str
    seconds: float


@dataclass(frozen=True)
class Recipe:
    """How one program is compiled and run.

    Attributes:
        files: Texts to be written to `JOB`, by name.
        compile: What compiles it; None where there is nothing to compile.
        run: What runs its tests.
    """

    files: Mapping[str, str]
    compile: Step | None
    run: Step


class Language(Protocol):
    """A programming language."""

    @property
    def name(self) -> str:
        """Its key."""

    @property
    def memory_signs(self) -> Sequence[str]:
        """Texts on standard error by which its compiler and its programs say that memory has run out."""

    @property
    def smallest(self) -> str:
        """A program that passes: where it does not, none can."""

    def missing(self) -> Missing | None:
        """The first tool that is not here; None where all are."""

    def prepare(self) -> None:
        """Makes what is made once for all programs, where it is not there yet. Ask `missing` before.

        Raises:
            MftrunError: A tool failed at it, or there is no place for it; says why.
        """

    def versions(self) -> Sequence[str]:
        """What verdicts depend on and no recipe shows: versions of tools. Cheap when asked again."""

    def recipe(self, program: Program, nonce: str) -> Recipe:
        """How a program is compiled and run.

        Args:
            program: The program.
            nonce: A word that the program cannot know. The driver beside it says it once all tests have been
                passed; it stands in no file, argument or variable that the program can read.
        """

    def has_passed(self, outcome: Outcome, nonce: str) -> bool:
        """Whether a run that came to its end has passed all tests."""


class Judged(NamedTuple):
    """A verdict.

    Attributes:
        verdict: The verdict.
        log: What the compiler or the program said, shortened in its middle where it is long.
        seconds: Wall-clock time of compiling and running.
    """

    verdict: Verdict
    log: str
    seconds: float
