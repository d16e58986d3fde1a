"""All ranks of one run, watched by their parent: what they report, how they end, what signals do to them."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import time
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from mftrun.launch import report
from mftrun.launch.errors import Stopped, describe_exit
from mftrun.launch.rank import Order, rank_main
from mftrun.launch.report import Kind, Report
from mftrun.launch.server import signals_held
from mftrun.launch.signals import SAVE_SIGNAL, ParentSignals, StopCount
from mftrun.launch.stop import EXIT_CODE

COLLECTING = 2.0
"""Seconds to wait, after a failure that looks like a consequence, for the one that explains it."""
ENDING = 5.0
"""Seconds between asking a rank to end and ending it."""

_SERVER_GONE = 255
_log = logging.getLogger("mftrun.launch")


class Member:
    """One rank as its parent sees it.

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
        """The exit code of its process, which has ended."""
        code = self._process.exitcode
        assert code is not None, "the process still runs"
        return code

    def waitables(self) -> list[Any]:
        """Return what becomes ready when there is something to look at."""
        return [self._process.sentinel] if self._reader.closed else [self._process.sentinel, self._reader]

    def look(self) -> None:
        """Take in its report and its end, as far as they have come."""
        # In this order: whatever it reported was in the pipe before it ended.
        ended = not self._process.is_alive()
        self._receive()
        self.ended = ended

    def send(self, signum: int) -> None:
        """Send it a signal, if it still runs."""
        if not self.ended and self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signum)

    def close(self) -> None:
        """Wait for its end and let go of everything held for it."""
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


class Crew:
    """All ranks of one run, from the start of the first to the end of the last.

    Args:
        signals: Where the parent's signals arrive.
    """

    def __init__(self, signals: ParentSignals) -> None:
        self._signals = signals
        self._stops = StopCount()
        self._members: list[Member] = []
        self._failures: list[Report] = []
        self._end_at: float | None = None
        self._kill_at: float | None = None
        self._ending = False

    def start(self, context: BaseContext, orders: list[Order]) -> None:
        """Start one process for each order."""
        with signals_held():
            for order in orders:
                self._members.append(_start(context, order))

    def watch(self) -> None:
        """Return when every rank has ended."""
        while alive := [member for member in self._members if not member.ended]:
            waitables = [waitable for member in alive for waitable in member.waitables()]
            connection.wait([*waitables, *self._signals.waitable], self._timeout())
            self._obey()
            for member in alive:
                self._look_at(member)
            self._meet_deadlines(time.monotonic())

    def end(self) -> None:
        """Leave no process behind: one that `watch` did not see end is killed."""
        self._send(signal.SIGKILL)
        for member in self._members:
            member.close()

    def result(self) -> Any:
        """Return what rank 0 returned.

        Raises:
            MftrunError: A rank raised it.
            RankFailed: A rank failed in another way.
            Stopped: The ranks ended early because they were asked to.
        """
        self._obey()
        failure = min(self._failures, key=lambda failure: failure.kind, default=None)
        if failure is not None and not (self._stops.first and failure.kind is Kind.COLLATERAL):
            raise failure.error()
        told = self._members[0].report
        value = None if told is None or told.failed else told.result()
        if self._stops.first is not None:
            raise Stopped(self._stops.first, value)
        return value

    def _obey(self) -> None:
        for signum in self._signals.take():
            if signum == SAVE_SIGNAL:
                self._send(SAVE_SIGNAL)
            else:
                self._stop(signum)

    def _stop(self, signum: int) -> None:
        if self._stops.first is None:
            _log.warning(
                "stopping: saving a checkpoint at the next step boundary; press Ctrl-C again to stop at once"
            )
            self._send(signal.SIGTERM)
        self._stops.add(signum)
        if self._stops.at_once:
            self._kill()

    def _look_at(self, member: Member) -> None:
        known = member.report
        member.look()
        if member.report is not known and member.report is not None and member.report.failed:
            self._fail(member.report)
        elif member.ended and member.report is None:
            self._miss(member)

    def _miss(self, member: Member) -> None:
        """Judge a rank that ended without a report."""
        if self._stops.first is not None and member.exitcode == EXIT_CODE:
            # It was not in its loop yet, so the others wait for it in vain.
            self._kill_at = self._kill_at or time.monotonic() + ENDING
        else:
            self._fail(report.of_death(member.rank, describe_exit(member.exitcode)))

    def _fail(self, failure: Report) -> None:
        # What ranks say once they are being ended is the consequence of that.
        if not self._ending:
            self._failures.append(failure)
            end_at = time.monotonic() + (COLLECTING if failure.kind is Kind.COLLATERAL else 0.0)
            self._end_at = min(end_at, self._end_at or end_at)

    def _meet_deadlines(self, now: float) -> None:
        if self._end_at is not None and now >= self._end_at and not self._ending:
            self._ending = True
            self._kill_at = now + ENDING
            self._send(signal.SIGTERM)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill()

    def _kill(self) -> None:
        self._ending = True
        self._kill_at = None
        self._send(signal.SIGKILL)

    def _timeout(self) -> float | None:
        end_at = None if self._ending else self._end_at
        deadlines = [deadline for deadline in (end_at, self._kill_at) if deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _send(self, signum: int) -> None:
        for member in self._members:
            member.send(signum)


def _start(context: BaseContext, order: Order) -> Member:
    # The concrete contexts have a Process each; their common base does not declare it.
    reader, writer = context.Pipe(duplex=False)
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]
        target=rank_main, args=(order, writer), name=f"rank-{order.rank}"
    )
    with writer:
        process.start()
    return Member(order.rank, process, reader)
