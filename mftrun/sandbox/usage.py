"""What all processes of a sandbox use together: the limits of the kernel count for each of them alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mftrun.sandbox.base import End, Limits
from mftrun.sandbox.folders import MANY

_MEMORY = ("RssAnon:", "RssShmem:")
_IN_MEMORY = ("tmp", "dev/shm")
_LARGE = 64 << 20  # bytes: none that holds less is ended for want of memory


class Usage:
    """Looks at a sandbox from outside.

    Args:
        pid: The first process inside.
        limits: What all processes may use together.
    """

    def __init__(self, pid: int, limits: Limits) -> None:
        self._root = Path(f"/proc/{pid}/root")
        self._limits = limits
        self._most = 0

    def was_large(self) -> bool:
        """Whether it held so much, when it was looked at, that the kernel may have ended it for that."""
        return self._most >= _LARGE

    def check(self) -> tuple[End, str] | None:
        """How the sandbox has to end, and why; None where it may go on, or has just ended."""
        memory, files = self._in_memory()
        memory += self._of_processes()
        self._most = max(self._most, memory)
        if memory > self._limits.memory:
            return End.MEMORY, ""
        if files >= MANY:
            return End.OUTPUT, f"it wrote {MANY:,} files or more"
        return None

    def _is_set_up(self) -> bool:
        """Whether the process has its own `/proc` by now; before, it sees that of this machine."""
        return (self._root / "proc").stat().st_dev != Path("/proc").stat().st_dev

    def _in_memory(self) -> tuple[int, int]:
        """Bytes and number of the files that are held in memory."""
        size = number = 0
        with contextlib.suppress(OSError):
            for name in _IN_MEMORY if self._is_set_up() else ():
                seen = os.statvfs(self._root / name)
                size += (seen.f_blocks - seen.f_bfree) * seen.f_frsize
                number += seen.f_files - seen.f_ffree
        return size, number

    def _of_processes(self) -> int:
        total = 0
        with contextlib.suppress(OSError):
            for entry in (self._root / "proc").iterdir() if self._is_set_up() else ():
                if entry.name.isdigit():
                    total += _memory(entry / "status")
        return total


def _memory(status: Path) -> int:
    """Bytes of a process that are its own or shared with others like it; 0 where it has just ended."""
    with contextlib.suppress(OSError, ValueError):
        lines = status.read_bytes().decode(errors="replace").splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(_MEMORY))
    return 0
