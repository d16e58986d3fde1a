"""An agent that is led: it starts ranks when told, passes on what happens, and ends with its leader."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from typing import Any

import mftrun
from mftrun.errors import ConfigError, MftrunError
from mftrun.launch import report, server
from mftrun.launch.errors import NodeLost, Stopped
from mftrun.launch.link import (
    Exited,
    Hello,
    Launch,
    Link,
    Note,
    Over,
    Refused,
    Send,
    Signalled,
    Told,
    Welcome,
)
from mftrun.launch.members import LocalMember, start_member
from mftrun.launch.place import Place
from mftrun.launch.server import rank_context, signals_held
from mftrun.launch.signals import SAVE_SIGNAL, SCHEDULED, ParentSignals, parent_signals
from mftrun.launch.store import OuterStore
from mftrun.launch.supervisor import orders_of

PATIENCE = 600.0
"""Seconds in which the leader must answer."""
LEADERLESS = 20.0
"""Seconds in which ranks whose leader is gone may still save."""

_RETRY = 0.5
_OWN_KEYS = ("distributed.node_rank=", "--local_rank=")
_log = logging.getLogger("mftrun.launch")


def follow(place: Place, arguments: Sequence[str]) -> int:
    """Be an agent that is led.

    Args:
        place: Its own.
        arguments: Its command line.

    Returns:
        The leader's exit code.

    Raises:
        MftrunError: The leader does not answer, does not want this agent, or is gone.
        NodeLost: It is gone, in a job of a scheduler.
        Stopped: This agent was asked to stop before it had ranks.
    """
    _configure_logging(place)
    server.warm_up()
    with parent_signals(os.environ) as signals:
        link = _introduced(place, signals)
        try:
            return _Follower(place, link, signals).serve(arguments)
        finally:
            link.close()


class _Follower:
    def __init__(self, place: Place, link: Link, signals: ParentSignals) -> None:
        self._place = place
        self._link = link
        self._signals = signals
        self._noted = ""

    def serve(self, arguments: Sequence[str]) -> int:
        """Do what the leader says until it says that all is over."""
        while True:
            match self._next():
                case Welcome(arguments=theirs):
                    _compare(arguments, theirs)
                case Refused(reason=reason):
                    raise MftrunError(f"the leader refuses this {self._place.kind}: {reason}")
                case Launch() as launch:
                    self._launch(launch)
                case Note(text=text):
                    self._say(text)
                case Over(code=code, text=text):
                    self._say(text)
                    return code
                case _:
                    pass  # meant for ranks that have ended by themselves

    def _say(self, text: str) -> None:
        """Once: the leader gives the reason for an end as soon as it knows it, and again at the end."""
        if text and text != self._noted:
            self._noted = text
            if self._place.speaks:
                _log.error("%s", text)

    def _next(self) -> Any:
        while True:
            connection.wait([*self._link.waitables, *self._signals.waitable])
            for signum in self._signals.take():
                if signum != SAVE_SIGNAL:
                    self._link.send(Signalled(signum))
                    raise Stopped(signum)
            if (message := self._link.next()) is not None:
                return message
            if self._link.closed:
                raise _leader_gone(self._place)

    def _launch(self, launch: Launch) -> None:
        try:
            if launch.log_file is not None and not launch.log_file.parent.is_dir():
                raise ConfigError(
                    "output_dir",
                    f"{socket.gethostname()} ({self._place.kind} {self._place.index}) has no folder "
                    f"{launch.log_file.parent}: all machines must see the run's folder under one name",
                )
            members = self._started(launch)
        except Exception as error:
            self._link.send(Told(report.of_error(launch.seats[0].rank, error)))
            for seat in launch.seats:
                self._link.send(Exited(seat.rank, 1))
            return
        Relay(self._link, self._signals, members).run()
        if self._link.closed:
            raise _leader_gone(self._place)

    def _started(self, launch: Launch) -> list[LocalMember]:
        context = rank_context()
        orders = orders_of(launch, self._place)
        with signals_held():
            return [start_member(context, order) for order in orders]


class Relay:
    """The ranks of a follower: what they report goes to the leader, what it orders goes to them.

    Args:
        link: The wire to the leader.
        signals: Where this agent's signals arrive.
        members: The ranks, started.
    """

    def __init__(self, link: Link, signals: ParentSignals, members: Sequence[LocalMember]) -> None:
        self._link = link
        self._signals = signals
        self._members = list(members)
        self._kill_at: float | None = None

    def run(self) -> None:
        """Return when every rank has ended."""
        try:
            while alive := [member for member in self._members if not member.ended]:
                waitables = [one for member in alive for one in member.waitables()]
                connection.wait([*waitables, *self._link.waitables, *self._signals.waitable], self._timeout())
                self._pass_on(alive)
                self._mind_the_leader()
        finally:
            self._send(signal.SIGKILL)
            for member in self._members:
                member.close()

    def _pass_on(self, alive: list[LocalMember]) -> None:
        for signum in self._signals.take():
            self._link.send(Signalled(signum))
        for message in self._link.received():
            if isinstance(message, Send):
                self._send(message.signum, message.rank)
        for member in alive:
            self._look_at(member)

    def _look_at(self, member: LocalMember) -> None:
        known = member.report
        member.look()
        if member.report is not None and member.report is not known:
            self._link.send(Told(member.report))
        if member.ended:
            self._link.send(Exited(member.rank, member.exitcode))

    def _mind_the_leader(self) -> None:
        now = time.monotonic()
        if self._link.closed and self._kill_at is None:
            _log.error("the leader is gone: the ranks of this machine may save, and end")
            self._kill_at = now + LEADERLESS
            self._send(signal.SIGTERM)
        if self._kill_at is not None and now >= self._kill_at:
            self._send(signal.SIGKILL)

    def _timeout(self) -> float | None:
        return None if self._kill_at is None else max(0.1, self._kill_at - time.monotonic())

    def _send(self, signum: int, rank: int | None = None) -> None:
        for member in self._members:
            if rank in (None, member.rank):
                member.send(signum)


def _introduced(place: Place, signals: ParentSignals) -> Link:
    """The wire to the leader, who has been told who this is."""
    hello = _hello(place)
    with signals.raising():
        link = _connected(place)
    link.greet(hello)
    if place.speaks:
        _log.info("found the leader at %s: it tells what happens, and writes the log", place.address)
    return link


def _hello(place: Place) -> Hello:
    seat, gpus = place.seat, None
    if seat is None:
        from mftrun.distributed.machines import visible_gpus

        gpus = visible_gpus()
    numbers = None if seat is None else (seat.rank, seat.local_rank, seat.local_world_size)
    return Hello(place.index, place.count, socket.gethostname(), gpus, numbers, mftrun.__version__)


def _connected(place: Place) -> Link:
    store = None if place.store_key is None else OuterStore(place)
    problem = ""
    for _ in _tries(place):
        port = place.port if store is None else store.port()
        if port is not None:
            try:
                return Link(socket.create_connection((place.address, port), timeout=_RETRY * 10))
            except OSError as error:
                problem = f": {error.strerror or error}"
    raise MftrunError(
        f"the leader at {place.address}:{place.port} did not answer in {PATIENCE:.0f} seconds{problem}"
    )


def _tries(place: Place) -> Iterator[None]:
    begin = time.monotonic()
    yield
    if place.speaks:
        _log.info("waiting for the leader at %s:%d", place.address, place.port)
    while time.monotonic() - begin < PATIENCE:
        time.sleep(_RETRY)
        yield


def _compare(own: Sequence[str], theirs: Sequence[str]) -> None:
    """Say so where this agent was asked for something else than the leader, whose run it is."""
    mine, others = set(_common(own)), set(_common(theirs))
    if mine != others:
        _log.warning(
            "the leader's command line counts, which differs from this one: there %s, here %s",
            " ".join(sorted(others - mine)) or "nothing more",
            " ".join(sorted(mine - others)) or "nothing more",
        )


def _common(arguments: Sequence[str]) -> list[str]:
    return [argument for argument in arguments if not argument.startswith(_OWN_KEYS)]


def _leader_gone(place: Place) -> MftrunError:
    loss = f"the leader at {place.address}:{place.port} is gone: see its own terminal or log"
    if os.environ.get(SCHEDULED) != "1":
        return MftrunError(loss)
    _log.error("%s", loss)
    return NodeLost(loss)


def _configure_logging(place: Place) -> None:
    mark = f"[{place.kind} {place.index}] "
    logging.basicConfig(level=logging.INFO, format=mark + "%(message)s", stream=sys.stdout, force=True)
