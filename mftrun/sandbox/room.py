"""Whether a compiler found room to write in: a full disk of this machine is no fault of a program."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mftrun.sandbox.base import End, Limits, Outcome

_FULL = 1 << 20  # bytes left
_SAID = os.strerror(errno.ENOSPC)


class Room:
    """Looks at the file system of the folder that a command writes in.

    Args:
        folder: The folder.
        limits: What the command was promised.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._promised = limits.disk
        self._was_full = False

    def check(self) -> None:
        """Notes whether it is full; that may be over when the command has ended."""
        self._was_full = self._was_full or self._left() < _FULL

    def judged(self, outcome: Outcome) -> Outcome:
        """The outcome, or a sandbox error where the command may have failed for want of room.

        Args:
            outcome: Of the command, which has just ended.
        """
        self.check()
        if outcome.end is not End.EXITED or outcome.exit_code == 0 or not self._lacked(outcome):
            return outcome
        return outcome._replace(end=End.ERROR, exit_code=None, reason=f"{_SAID.lower()} in {self._folder}")

    def _lacked(self, outcome: Outcome) -> bool:
        if self._was_full:
            return True
        return self._left() < self._promised and _SAID in outcome.stderr + outcome.stdout

    def _left(self) -> int:
        seen = os.statvfs(self._folder)
        if seen.f_files and not seen.f_favail:
            return 0
        # Some file systems, those in memory without a limit among them, do not say how large they are.
        return seen.f_bavail * seen.f_frsize if seen.f_blocks else self._promised
