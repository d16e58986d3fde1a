"""The leader's side of a run of several agents: where the others come to, and what they are given to do."""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

import mftrun
from mftrun.errors import ConfigError, MftrunError
from mftrun.launch.errors import Stopped
from mftrun.launch.link import Hello, Link, Note, Over, Refused, Welcome, listen
from mftrun.launch.place import Place
from mftrun.launch.remote import RemoteAgent, stop_signal_of
from mftrun.launch.seats import Seat, numbered
from mftrun.launch.signals import gone
from mftrun.launch.store import OuterStore

PATIENCE = 600.0
"""Seconds in which all agents must have come."""
LINGERING = {"node": 5.0, "process": 60.0}
"""Seconds that a leader who has ended waits for agents that it has not told so yet, by their kind.

Processes of an outer launcher are on their way for certain; nodes may not have been started at all.
"""

_REMINDER = 10.0
_LOOK = 0.5
_log = logging.getLogger("mftrun.launch")


class Team:
    """All agents, as their leader sees them.

    Args:
        place: The leader's.
        arguments: Its command line.

    Raises:
        MftrunError: Its port is taken.
    """

    def __init__(self, place: Place, arguments: Sequence[str]) -> None:
        self.place = place
        self._arguments = list(arguments)
        self._agents: dict[int, RemoteAgent] = {}
        self._seats: dict[int, Seat | None] = {}
        self._server = _listening(place)

    @property
    def agents(self) -> list[RemoteAgent]:
        """The others, in their order."""
        return [self._agents[index] for index in sorted(self._agents)]

    @property
    def is_whole(self) -> bool:
        """Whether nobody who has come is gone."""
        return not any(agent.gone for agent in self._agents.values())

    def gather(self) -> None:
        """Return when all agents are there.

        Raises:
            MftrunError: Some have not come in time.
            RankFailed: One that had come is gone.
            NodeLost: The same, in a job of a scheduler.
            Stopped: One was asked to stop.
        """
        deadline, reminder = time.monotonic() + PATIENCE, time.monotonic() + _REMINDER
        while missing := self._missing():
            self._admit(_LOOK)
            if time.monotonic() > reminder:
                _log.warning("waiting at port %d for %s", self.place.port, self._named(missing))
                reminder = deadline
            if time.monotonic() > deadline:
                raise MftrunError(f"{self._named(missing)} did not come in {PATIENCE:.0f} seconds")
        if (signum := stop_signal_of(self.agents)) is not None:
            raise Stopped(signum)
        lost = next((index for index, agent in self._agents.items() if agent.gone), None)
        if lost is not None:
            raise gone(lost, self._agents[lost].loss, os.environ)

    def seats(self, own: int, asked: int | None) -> list[list[Seat]]:
        """The seats of every agent's ranks, the leader's first.

        Args:
            own: Ranks of the leader.
            asked: Ranks that every node shall have; None gives each as many as it has GPUs.

        Raises:
            ConfigError: A node cannot have so many.
        """
        if self.place.seat is not None:
            return [[self.place.seat], *([seat] for _, seat in sorted(self._seats.items()) if seat)]
        return numbered([own, *(_count(agent, asked) for agent in self.agents)])

    def tell(self, text: str) -> None:
        """Let the users of all agents read something."""
        for agent in self.agents:
            agent.send(Note(text))

    def dismiss(self, code: int, text: str) -> None:
        """Let all agents end, those who come late included.

        Args:
            code: The leader's exit code.
            text: Why it ends; empty after a success.
        """
        deadline = time.monotonic() + LINGERING[self.place.kind]
        while self._missing() and time.monotonic() < deadline:
            self._admit(_LOOK)
        for agent in self.agents:
            agent.dismiss(Over(code, text))
        self._server.close()

    def _missing(self) -> list[int]:
        return [index for index in range(1, self.place.count) if index not in self._agents]

    def _named(self, indices: Sequence[int]) -> str:
        return f"{self.place.kind} {', '.join(map(str, indices))}"

    def _admit(self, patience: float) -> None:
        """Let in who knocks."""
        self._server.settimeout(patience)
        with suppress(OSError):  # nobody knocks, or is gone again
            connection, _ = self._server.accept()
            link = Link(connection)
            if (hello := link.greeting()) is not None:
                self._welcome(link, hello)

    def _welcome(self, link: Link, hello: Hello) -> None:
        name = f"{self.place.kind} {hello.index} ({hello.host})"
        if (reason := self._objection(hello)) is not None:
            _log.warning("%s was refused: %s", name, reason)
            link.send(Refused(reason))
            link.close()
            return
        link.send(Welcome(self._arguments))
        self._agents[hello.index] = RemoteAgent(link, name, hello.gpus)
        self._seats[hello.index] = None if hello.seat is None else Seat(*hello.seat)

    def _objection(self, hello: Hello) -> str | None:
        if hello.version != mftrun.__version__:
            return f"mftrun is {hello.version} there and {mftrun.__version__} at the leader"
        if hello.count != self.place.count:
            return f"it belongs to {hello.count} agents, and the leader to {self.place.count}"
        if hello.index not in self._missing():
            return f"there is a {self.place.kind} {hello.index} already; give every one its own number"
        return None


class _Teams:
    """The teams that this process leads: one, as long as its configuration does not change on the way."""

    def __init__(self) -> None:
        self.by_place: dict[Place, Team] = {}


@functools.cache
def _teams() -> _Teams:
    return _Teams()


def lead(place: Place, arguments: Sequence[str]) -> Team:
    """The team of a place, which stays together until `dismiss_all`.

    Args:
        place: That of a leader.
        arguments: Its command line.

    Raises:
        MftrunError: Its port is taken.
    """
    teams = _teams().by_place
    if place not in teams:
        teams[place] = Team(place, arguments)
    return teams[place]


def dismiss_all(code: int, text: str) -> None:
    """Let all agents of all teams end; see `Team.dismiss`."""
    teams = _teams().by_place
    while teams:
        teams.popitem()[1].dismiss(code, text)


def _count(agent: RemoteAgent, asked: int | None) -> int:
    gpus = agent.gpus or 0
    wanted = max(gpus, 1) if asked is None else asked
    if gpus and wanted > gpus:
        raise ConfigError(
            "distributed.num_processes", f"{wanted} ranks need as many GPUs, and {agent.name} has {gpus}"
        )
    return wanted


def _listening(place: Place) -> socket.socket:
    port = place.port if place.store_key is None else 0
    try:
        server = listen(place.address, port)
    except OSError as error:
        if place.by_slurm:
            raise MftrunError(
                f"port {port} of {socket.gethostname()}, which follows from the job's number, cannot be "
                f"listened at: {error.strerror}; submit again: another job has another port"
            ) from error
        raise ConfigError(
            "distributed.main_port", f"{port} cannot be listened at: {error.strerror}; choose another"
        ) from error
    if place.store_key is not None:
        OuterStore(place).publish(server.getsockname()[1])
    return server
