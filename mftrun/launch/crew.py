"""All ranks of one run, watched by their parent: what they report, how they end, what signals do to them."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable, Sequence
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any

from mftrun.launch.errors import Stopped
from mftrun.launch.members import Member, start_member
from mftrun.launch.rank import Order
from mftrun.launch.remote import RemoteAgent
from mftrun.launch.report import Kind, Report
from mftrun.launch.server import signals_held
from mftrun.launch.signals import SAVE_SIGNAL, ParentSignals, StopCount, gone
from mftrun.launch.stop import EXIT_CODE

COLLECTING = 2.0
"""Seconds to wait, after a failure that looks like a consequence, for the one that explains it."""
ENDING = 5.0
"""Seconds between asking a rank to end and ending it."""

_log = logging.getLogger("mftrun.launch")


class Crew:
    """All ranks of one run, from the start of the first to the end of the last.

    Args:
        signals: Where the parent's signals arrive.
        agents: Other agents, whose ranks belong to it, too.
        interrupts_repeat: Whether a Ctrl-C may arrive twice, as an outer launcher passes it on.
    """

    def __init__(
        self,
        signals: ParentSignals,
        agents: Sequence[RemoteAgent] = (),
        *,
        interrupts_repeat: bool = False,
    ) -> None:
        self._signals = signals
        self._agents = agents
        # One count for each source: a Ctrl-C that reaches all agents is still the first.
        sources: list[ParentSignals | RemoteAgent] = [signals, *agents]
        self._sources = [(source, StopCount(interrupts_repeat=interrupts_repeat)) for source in sources]
        self._stopped_by: int | None = None
        self._members: list[Member] = []
        self._failures: list[Report] = []
        self._judged: set[int] = set()
        self._end_at: float | None = None
        self._kill_at: float | None = None
        self._ending = False

    def start(self, context: BaseContext, orders: list[Order]) -> None:
        """Start one process for each order."""
        with signals_held():
            for order in orders:
                self._members.append(start_member(context, order))

    def join(self, members: Iterable[Member]) -> None:
        """Add ranks that an agent has started."""
        self._members += members

    def watch(self) -> None:
        """Return when every rank has ended."""
        while alive := [member for member in self._members if not member.ended]:
            connection.wait(self._waitables(alive), self._timeout())
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
            NodeLost: An agent is gone, in a job of a scheduler.
            RankFailed: A rank failed in another way.
            Stopped: The ranks ended early because they were asked to.
        """
        self._obey()
        failure = min(self._failures, key=lambda failure: failure.kind, default=None)
        if failure is not None and not (self._stopped_by and failure.kind is Kind.COLLATERAL):
            if failure.kind is Kind.LOST:
                raise gone(failure.rank, failure.reason, os.environ)
            raise failure.error()
        told = self._members[0].report
        value = None if told is None or told.failed else told.result()
        if self._stopped_by is not None:
            raise Stopped(self._stopped_by, value)
        return value

    def _waitables(self, alive: list[Member]) -> list[Any]:
        others = [waitable for agent in self._agents for waitable in agent.waitables]
        return [*(one for member in alive for one in member.waitables()), *others, *self._signals.waitable]

    def _obey(self) -> None:
        for source, stops in self._sources:
            for signum in source.take():
                if signum == SAVE_SIGNAL:
                    self._send(SAVE_SIGNAL)
                else:
                    self._stop(signum, stops)

    def _stop(self, signum: int, stops: StopCount) -> None:
        if self._stopped_by is None:
            self._stopped_by = signum
            _log.warning(
                "stopping: saving a checkpoint at the next step boundary; press Ctrl-C again to stop at once"
            )
            self._send(signal.SIGTERM)
        stops.add(signum)
        if stops.at_once:
            self._kill()

    def _look_at(self, member: Member) -> None:
        member.look()
        if member.report is not None and member.report.failed and member.rank not in self._judged:
            self._judged.add(member.rank)
            self._fail(member.report)
        elif member.ended and member.report is None:
            self._miss(member)

    def _miss(self, member: Member) -> None:
        """Judge a rank that ended without a report."""
        if self._stopped_by is not None and member.exitcode == EXIT_CODE:
            # It was not in its loop yet, so the others wait for it in vain.
            self._kill_at = self._kill_at or time.monotonic() + ENDING
        else:
            self._fail(member.death())

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
