"""One rank, as the agent sees it that started it."""

from __future__ import annotations

import os
import pickle
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from mftrun.launch.errors import describe_exit
from mftrun.launch.rank import Order, rank_main
from mftrun.launch.report import Report, of_death

_SERVER_GONE = 255


class Member(Protocol):
    """One rank, wherever it runs.

    Attributes:
        rank: Its number.
        report: Its last word, once that has come.
        ended: Whether its process has ended.
    """

    rank: int
    report: Report | None
    ended: bool

    @property
    def exitcode(self) -> int | None:
        """The exit code of its process, which has ended; None where nobody knows it."""

    def death(self) -> Report:
        """Report, in its place, how it came to its end without a word."""

    def waitables(self) -> list[Any]:
        """Return what becomes ready when there is something to look at."""

    def look(self) -> None:
        """Take in its report and its end, as far as they have come."""

    def send(self, signum: int) -> None:
        """Send it a signal, if it still runs."""

    def close(self) -> None:
        """Wait for its end and let go of everything held for it."""


class LocalMember:
    """A rank on this machine.

    Args:
        rank: Its number.
        process: Its started process.
        reader: The pipe through which it reports.
    """

    def __init__(self, rank: int, process: BaseProcess, reader: Connection) -> None:
        self.rank = rank
        self.report: Report | None = None
        self.ended = False
        self._process = process
        self._reader = reader

    @property
    def exitcode(self) -> int:
        """See `Member`."""
        code = self._process.exitcode
        assert code is not None, "the process still runs"
        return code

    def death(self) -> Report:
        """See `Member`."""
        return of_death(self.rank, describe_exit(self.exitcode))

    def waitables(self) -> list[Any]:
        """See `Member`."""
        return [self._process.sentinel] if self._reader.closed else [self._process.sentinel, self._reader]

    def look(self) -> None:
        """See `Member`."""
        # In this order: whatever it reported was in the pipe before it ended.
        ended = not self._process.is_alive()
        self._receive()
        self.ended = ended

    def send(self, signum: int) -> None:
        """See `Member`."""
        if not self.ended and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signum)

    def close(self) -> None:
        """See `Member`."""
        self._process.join()
        if self.exitcode == _SERVER_GONE:
            # Its fork server died, and with it the news of this process: it may still run.
            self.ended = False
            self.send(signal.SIGKILL)
        self._process.close()
        self._reader.close()

    def _receive(self) -> None:
        try:
            while not self._reader.closed and self._reader.poll():
                self.report = pickle.loads(self._reader.recv_bytes())
        except (EOFError, OSError):
            self._reader.close()


def start_member(context: BaseContext, order: Order) -> LocalMember:
    """Start the process of a rank."""
    # The concrete contexts have a Process each; their common base does not declare it.
    reader, writer = context.Pipe(duplex=False)
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]
        target=rank_main, args=(order, writer), name=f"rank-{order.seat.rank}"
    )
    with writer:
        process.start()
    return LocalMember(order.seat.rank, process, reader)
