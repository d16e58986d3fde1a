"""What ``bwrap`` tells of itself while it runs a command."""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_DEATH = 5.0  # seconds that the kernel is given to end what is left of a sandbox


class Status:
    """What ``bwrap`` tells of itself: the first process inside, and how the command ended.

    Args:
        read: A pipe's end.
        write: Its other end.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read = read
        self.write = write
        self._text = b""
        self._handle: int | None = None
        self.pid: int | None = None

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator[Status]:
        """Gives one with a pipe of its own."""
        status = cls(*os.pipe())
        try:
            yield status
        finally:
            for handle in (status._read, status.write, status._handle):
                if handle is not None and handle >= 0:
                    os.close(handle)

    def begin(self) -> None:
        """Waits for the first word: the number of the first process inside."""
        os.close(self.write)
        self.write = -1
        while b"\n" not in self._text and (more := os.read(self._read, 4096)):
            self._text += more
        self.pid = self._said().get("child-pid")
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                self._handle = os.pidfd_open(self.pid)

    def wait_for_death(self) -> None:
        """Waits until the first process is gone, and with it, so the kernel says, all others."""
        if self._handle is not None:
            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            poll.poll(_DEATH * 1000)
        while more := os.read(self._read, 4096):
            self._text += more

    def exit_code(self) -> int | None:
        """The exit code of the command; None where it was never begun, or did not end."""
        return self._said().get("exit-code")

    def _said(self) -> Mapping[str, int]:
        said: dict[str, int] = {}
        for line in self._text.decode().splitlines():
            with contextlib.suppress(ValueError):
                said.update(json.loads(line))
        return said
