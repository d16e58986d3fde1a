"""What a sandbox is asked to run, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

JOB = "/job"  # inside: the files of a program, read-only
BUILD = "/build"  # inside: what a compilation writes, read-only when it runs


class End(Enum):
    """How a command ended."""

    EXITED = "exited"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT = "output limit"
    ERROR = "sandbox error"


@dataclass(frozen=True)
class Limits:
    """What a command may use.

    Attributes:
        seconds: Wall-clock time.
        memory: Bytes of data of a process (RLIMIT_DATA).
        output: Bytes of its standard output, and of its standard error.
        disk: Bytes of files that it may write.
        processes: Processes and threads at a time.
    """

    seconds: float
    memory: int = 4 << 30
    output: int = 1 << 20
    disk: int = 256 << 20
    processes: int = 256


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        command: Program and arguments; paths are those inside (`JOB`, `BUILD`, ``/usr``).
        limits: What it may use.
        environment: All of its environment; nothing else is handed on.
        stdin: What it reads.
        visible: Folders of this machine that it sees besides ``/usr``, read-only, at the same place.
        builds: Whether it may write in `BUILD`; what it writes is there for later steps of the same program.
    """

    command: Sequence[str]
    limits: Limits
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    visible: Sequence[Path] = ()
    builds: bool = False


class Outcome(NamedTuple):
    """What became of a command.

    Attributes:
        end: How it ended.
        exit_code: Its exit code, the negative number of the signal that ended it, None where it did not end.
        stdout: What it said, up to its limit.
        stderr: The same of its errors.
        seconds: Wall-clock time that it took.
        reason: Of a sandbox error: what went wrong.
    """

    end: End
    exit_code: int | None
    stdout: str
    stderr: str
    seconds: float
    reason: str = ""


class Sandbox(Protocol):
    """Runs commands; may be asked from several threads at once."""

    @property
    def name(self) -> str:
        """What it is, for the log."""

    def run(self, step: Step, files: Path, build: Path) -> Outcome:
        """Runs one command to its end, and leaves no process behind.

        Args:
            step: The command.
            files: Folder of this machine that is seen as `JOB`.
            build: Folder of this machine that is seen as `BUILD`.
        """


@runtime_checkable
class SandboxOption(Protocol):
    """The choice of a sandbox; the group ``sandbox``."""

    workers: int | None
    """Programs that run at once; None takes one for every core."""

    def open(self) -> Sandbox:
        """A sandbox that has been tried.

        Raises:
            ConfigError: None works here. Names what is missing, the command that installs it, and
                ``sandbox.allow_unsafe=true``.
        """
