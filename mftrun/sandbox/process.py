"""One process of this machine: what it says is kept in memory, and it ends when its time is over."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from mftrun.sandbox.base import End, Limits, Outcome

PROBE = 0.05  # seconds between two looks at what a process uses
_FEEDING = 0.002  # the same while there is more for it to read than a pipe holds
_OOM = "oom_kill "
_KILLED = frozenset({-signal.SIGKILL, 128 + signal.SIGKILL})

Check = Callable[[], tuple[End, str] | None]
"""Looks at what a process uses: how it has to end, and why; None where it may go on."""


@dataclass(frozen=True)
class Command:
    """A process to be started.

    Attributes:
        arguments: Program and arguments.
        limits: Its time, and how much it may say.
        stdin: What it reads.
        environment: All of its environment.
        folder: Where it starts; None where that does not matter.
        kept: File descriptors that it is given besides the usual three.
    """

    arguments: Sequence[str]
    limits: Limits
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    kept: Sequence[int] = ()


class Running:
    """A process that was started, the first of its group.

    Args:
        command: What was started.
        stdout: Where its output goes.
        stderr: Where its errors go.
    """

    def __init__(self, command: Command, stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self._limits = command.limits
        self._said = (stdout, stderr)
        self._rest = memoryview(command.stdin)
        self._oom_kills = oom_kills()
        self._start = time.monotonic()
        # A pipe: what was read from it cannot be read again, as from a file.
        self._process = subprocess.Popen(
            command.arguments,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            env=dict(command.environment),
            cwd=command.folder,
            pass_fds=tuple(command.kept),
            start_new_session=True,
        )
        self.pid = self._process.pid

    def wait(self, checks: Sequence[Check] = (), was_large: Callable[[], bool] = lambda: True) -> Outcome:
        """Waits until the process has ended, or ends it.

        Args:
            checks: Are asked now and then.
            was_large: Whether the kernel may have ended it for want of memory: it counts such ends for all of
                this machine.
        """
        checks = (self._has_said_too_much, *checks)
        found: tuple[End, str] | None
        with _exit_of(self.pid) as has_ended:
            found = self._look(has_ended, checks)
        self.kill()
        code = self._process.wait()
        seconds = time.monotonic() - self._start
        end, reason = found or self._end_of(code, was_large)
        stdout, stderr = (_text(stream, self._limits.output) for stream in self._said)
        return Outcome(end, code if found is None else None, stdout, stderr, seconds, reason)

    def kill(self) -> None:
        """Ends the process and its group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _look(self, has_ended: Callable[[float], bool], checks: Sequence[Check]) -> tuple[End, str] | None:
        deadline = self._start + self._limits.seconds
        self._feed()
        while not has_ended(min(_FEEDING if self._rest else PROBE, max(0.0, deadline - time.monotonic()))):
            self._feed()
            for found in filter(None, (check() for check in checks)):
                return found
            if time.monotonic() >= deadline:
                return End.TIMEOUT, ""
        return None

    def _feed(self) -> None:
        """Hands over what the process has room for, and closes the pipe behind the last of it."""
        stream = self._process.stdin
        if stream is None or stream.closed:
            return
        os.set_blocking(stream.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            try:
                while self._rest:
                    self._rest = self._rest[os.write(stream.fileno(), self._rest) :]
            except BrokenPipeError:
                self._rest = self._rest[:0]
            stream.close()

    def _has_said_too_much(self) -> tuple[End, str] | None:
        if all(os.fstat(stream.fileno()).st_size <= self._limits.output for stream in self._said):
            return None
        return End.OUTPUT, ""

    def _end_of(self, code: int, was_large: Callable[[], bool]) -> tuple[End, str]:
        if code in {-signal.SIGXFSZ, 128 + signal.SIGXFSZ}:
            return End.OUTPUT, ""
        if code in _KILLED and oom_kills() > self._oom_kills and was_large():
            return End.MEMORY, ""
        return self._has_said_too_much() or (End.EXITED, "")


@contextmanager
def started(command: Command) -> Iterator[Running]:
    """Starts a process, and leaves none of its group behind.

    Args:
        command: The process.

    Raises:
        OSError: It cannot be started.
    """
    with _stream("stdout") as stdout, _stream("stderr") as stderr:
        running = Running(command, stdout, stderr)
        try:
            yield running
        finally:
            running.kill()
            running._process.wait()


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory so far; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith(_OOM):
                return int(line.removeprefix(_OOM))
    return 0


@contextmanager
def _exit_of(pid: int) -> Iterator[Callable[[float], bool]]:
    """Gives what waits for the end of a child, so many seconds at most, without reaping it."""
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        yield lambda seconds: bool(poll.poll(seconds * 1000))
    finally:
        os.close(handle)


def _stream(name: str) -> IO[bytes]:
    """A file in memory: no neighbour can take the room for it, as on a disk.

    A pipe would do, but its writers may be told to come again later, and not all of them do.
    """
    return os.fdopen(os.memfd_create(name), "w+b")


def _text(stream: IO[bytes], limit: int) -> str:
    stream.seek(0)
    return stream.read(limit).decode(errors="replace")
