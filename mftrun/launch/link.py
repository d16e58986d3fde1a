"""The wire between two agents: a TCP connection that both wait for together with their ranks.

Its end is the news that the other agent is gone: at once when its process ends, within `SILENCE` when its
machine or the network does. As with torch's own stores, whoever can reach the port is trusted.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mftrun.launch.network import is_loopback
from mftrun.launch.report import Report
from mftrun.launch.seats import Seat, World

SILENCE = 20
"""Seconds without an answer of the other machine after which it counts as gone."""

_PROBE_EVERY = 5
_GREETING = 10.0
_GREETING_BYTES = 1_000_000


@dataclass(frozen=True)
class Hello:
    """A follower's first word, as JSON: nothing is unpickled from somebody who has not said it.

    Attributes:
        index: The agent's number.
        count: How many agents it believes there are.
        host: Name of its machine.
        gpus: GPUs that it sees; None where its ranks were counted by another launcher.
        seat: See `Place.seat`.
        version: Of mftrun.
    """

    index: int
    count: int
    host: str
    gpus: int | None
    seat: tuple[int, int, int] | None
    version: str


@dataclass(frozen=True)
class Welcome:
    """The leader's answer: its command line."""

    arguments: list[str]


@dataclass(frozen=True)
class Refused:
    """The leader's other answer: why the follower cannot be part of this run."""

    reason: str


@dataclass(frozen=True)
class Launch:
    """The leader's order to start ranks.

    Attributes:
        seats: One for each rank.
        world: All ranks of the run.
        work: Pickled pair of worker and payload.
        log_file: The run's log, which the follower must see, too.
        log_level: The lowest level that rank 0 logs.
    """

    seats: list[Seat]
    world: World
    work: bytes
    log_file: Path | None
    log_level: int


@dataclass(frozen=True)
class Send:
    """The leader's order to send a signal to a rank."""

    rank: int
    signum: int


@dataclass(frozen=True)
class Told:
    """A rank of the follower has reported."""

    report: Report


@dataclass(frozen=True)
class Exited:
    """A rank of the follower has ended; nothing more comes of it."""

    rank: int
    exitcode: int


@dataclass(frozen=True)
class Signalled:
    """The follower has received a signal, which is meant for the whole run."""

    signum: int


@dataclass(frozen=True)
class Note:
    """Something that the leader wants to be read at the follower, too."""

    text: str


@dataclass(frozen=True)
class Over:
    """The leader has ended.

    Attributes:
        code: Its exit code.
        text: What it has told its user; empty after a success.
    """

    code: int
    text: str


class Link:
    """One end of the wire.

    Args:
        connection: An open TCP connection.
    """

    def __init__(self, connection: socket.socket) -> None:
        _keep_watch(connection)
        connection.setblocking(True)
        self._connection = Connection(connection.detach())

    @property
    def closed(self) -> bool:
        """Whether the other end is known to be gone, or this one was closed."""
        return self._connection.closed

    @property
    def waitables(self) -> list[Any]:
        """What becomes ready when something has come."""
        return [] if self.closed else [self._connection]

    def send(self, message: Any) -> None:
        """Send a message; nothing happens when the other end is gone, which the reading side finds out."""
        if not self.closed:
            with suppress(OSError):
                self._connection.send_bytes(pickle.dumps(message))

    def received(self) -> list[Any]:
        """Return the messages that have come; closes the link at its end."""
        return list(iter(self.next, None))

    def next(self) -> Any:
        """Return the oldest message that has come; None where there is none, or the link is closed."""
        try:
            if not self.closed and self._connection.poll():
                return pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self.close()
        return None

    def greet(self, hello: Hello) -> None:
        """Send the first word."""
        with suppress(OSError):
            self._connection.send_bytes(json.dumps(asdict(hello)).encode())

    def greeting(self) -> Hello | None:
        """Return the other's first word; None, with the link closed, for somebody who does not know it."""
        try:
            if self._connection.poll(_GREETING):
                return Hello(**json.loads(self._connection.recv_bytes(_GREETING_BYTES)))
        except (EOFError, OSError, ValueError, TypeError):
            pass
        self.close()
        return None

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def listen(address: str, port: int) -> socket.socket:
    """A socket that agents can connect to: from this machine alone if the address means no other.

    Raises:
        OSError: The port is taken.
    """
    where = address if is_loopback(address) else ""
    server = socket.create_server((where, port), backlog=1024)
    os.set_inheritable(server.fileno(), False)
    return server


def _keep_watch(connection: socket.socket) -> None:
    """Find out, without any traffic of ours, when the other machine no longer answers."""
    options = (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_EVERY),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENCE // _PROBE_EVERY - 1),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE * 1000),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    )
    for level, name, value in options:
        connection.setsockopt(level, name, value)
