"""A rank's side of stopping: what signals ask of it, and when it may answer later."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
HELD_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2})
"""Blocked from before a rank exists until its handlers stand, so that none is lost and none strikes early."""


class StopRequest:
    """What the outside has asked of this rank.

    SIGTERM ends the rank at once (exit code 143) while it starts and loads; inside `graceful()` it sets
    `stop_requested` instead, and the loop saves and returns when it next looks. SIGUSR2 sets
    `save_requested` inside `graceful()` and does nothing outside. Ranks receive signals at different
    moments: before acting on a request, ranks that work together must agree on it.
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self.save_requested = False
        self.ended = False
        self._graceful = False

    def clear_save(self) -> None:
        """Note that the requested checkpoint has been written."""
        self.save_requested = False

    @contextmanager
    def graceful(self) -> Iterator[StopRequest]:
        """Inside, requests are noted for the loop to answer at its next step boundary."""
        if self.ended:
            # The request to end struck where Python discards exceptions, such as a finalizer.
            raise SystemExit(EXIT_CODE)
        self._graceful = True
        try:
            yield self
        finally:
            self._graceful = False

    def install(self) -> None:
        """Handle this process's signals; those held back since before its start arrive now."""
        # Ctrl-C reaches every process of the terminal and a hang-up too: the parent alone answers them.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGUSR2, self._on_save)
        # A process forked by a library must die of SIGTERM as that library expects.
        os.register_at_fork(after_in_child=_forget_handlers)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        if self._graceful:
            self.stop_requested = True
        elif not self.stop_requested and not self.ended:
            # The same request often comes twice: from the parent and to the whole process group.
            self.ended = True
            raise SystemExit(EXIT_CODE)

    def _on_save(self, signum: int, frame: FrameType | None) -> None:
        self.save_requested = self.save_requested or self._graceful


def _forget_handlers() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
