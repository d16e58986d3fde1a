"""Other agents and their ranks, as the leader sees them: waited for and signalled like its own."""

from __future__ import annotations

import signal
import time
from multiprocessing import connection
from typing import Any

from mftrun.launch.errors import describe_exit
from mftrun.launch.link import Exited, Launch, Link, Over, Send, Signalled, Told
from mftrun.launch.report import Report, of_death, of_loss

FINISHING = 10.0
"""Seconds that an agent has for telling that its killed ranks have ended."""


class RemoteMember:
    """A rank of another agent; see `Member`.

    Args:
        rank: Its number.
        agent: Started it.
    """

    def __init__(self, rank: int, agent: RemoteAgent) -> None:
        self.rank = rank
        self.report: Report | None = None
        self.ended = False
        self.exitcode: int | None = None
        self._agent = agent

    def death(self) -> Report:
        """See `Member`."""
        if self.exitcode is None:
            return of_loss(self.rank, self._agent.loss, leaving=self._agent.leaving)
        return of_death(self.rank, describe_exit(self.exitcode))

    def waitables(self) -> list[Any]:
        """The agent is waited for instead."""
        return []

    def look(self) -> None:
        """Its agent has looked: what came since must be waited for, with any signals that came along."""

    def send(self, signum: int) -> None:
        """See `Member`."""
        if not self.ended:
            self._agent.send(Send(self.rank, signum))

    def close(self) -> None:
        """See `Member`."""
        self._agent.finish()


class RemoteAgent:
    """Another agent.

    Args:
        link: The wire to it.
        name: What to call it.
        gpus: GPUs that it sees; None if that does not matter.

    Attributes:
        leaving: Whether it has been asked to stop, and may go any moment.
    """

    def __init__(self, link: Link, name: str, gpus: int | None) -> None:
        self.name = name
        self.gpus = gpus
        self.leaving = False
        self._link = link
        self._members: dict[int, RemoteMember] = {}
        self._signals: list[int] = []

    @property
    def waitables(self) -> list[Any]:
        """What becomes ready when there is something to look at."""
        return self._link.waitables

    @property
    def gone(self) -> bool:
        """Whether nothing more will come of it."""
        return self._link.closed

    @property
    def loss(self) -> str:
        """What it means that it is gone."""
        return f"{self.name} is gone: its `python -m mftrun` was ended, or the machine or its network is down"

    def launch(self, launch: Launch) -> list[RemoteMember]:
        """Start its ranks."""
        self._members = {seat.rank: RemoteMember(seat.rank, self) for seat in launch.seats}
        self.send(launch)
        return list(self._members.values())

    def send(self, message: Any) -> None:
        """Send it a message."""
        self._link.send(message)

    def take(self) -> list[int]:
        """Take in what it has told; return the numbers of the signals that it has received."""
        self._look()
        taken, self._signals = self._signals, []
        return taken

    def _look(self) -> None:
        for message in self._link.received():
            self._take_in(message)
        if self.gone:
            for member in self._members.values():
                member.ended = True

    def finish(self) -> None:
        """Return when none of its ranks is left, or nobody can tell any more."""
        deadline = time.monotonic() + FINISHING
        while any(not member.ended for member in self._members.values()):
            left = deadline - time.monotonic()
            if not connection.wait(self.waitables, max(0.0, left)):
                self._link.close()
            self._look()

    def dismiss(self, over: Over) -> None:
        """Let it end."""
        self.send(over)
        self._link.close()

    def _take_in(self, message: Any) -> None:
        if isinstance(message, Told):
            self._members[message.report.rank].report = message.report
        elif isinstance(message, Exited):
            member = self._members[message.rank]
            member.ended, member.exitcode = True, message.exitcode
        elif isinstance(message, Signalled):
            self._signals.append(message.signum)
            self.leaving |= message.signum != signal.SIGUSR2


def stop_signal_of(agents: list[RemoteAgent]) -> int | None:
    """The stop signal that an agent has received before there were ranks, if one has."""
    received = [signum for agent in agents for signum in agent.take()]
    return next((signum for signum in received if signum != signal.SIGUSR2), None)
