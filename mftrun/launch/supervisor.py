"""The entry: run one function in every rank."""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from mftrun.launch.crew import Crew
from mftrun.launch.rank import Descriptor, Order, RankContext
from mftrun.launch.server import rank_context
from mftrun.launch.signals import ParentSignals

Payload = TypeVar("Payload")
Result = TypeVar("Result")

_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_PORT = 10_000
_PORT_TRIES = 100


def run_ranks(
    worker: Callable[[RankContext, Payload], Result],
    payload: Payload,
    *,
    num_processes: int,
    log_file: Path | None,
) -> Result:
    """Run `worker(context, payload)` in every rank and return what rank 0 returned.

    The first SIGINT, SIGTERM or SIGHUP lets the ranks save and return, the second ends them at once;
    SIGUSR2 lets them save and go on. When this function returns or raises, no rank is left.

    Args:
        worker: A function at the top level of a module.
        payload: Anything that pickles; every rank gets its own copy.
        num_processes: How many ranks, all on this machine.
        log_file: The run's one log, to which the ranks append.

    Raises:
        MftrunError: The same error that a rank raised.
        RankFailed: A rank raised anything else, or its process died.
        Stopped: The parent was asked to stop, and the ranks did.
    """
    work = pickle.dumps((worker, payload))
    with ParentSignals() as signals:
        with signals.raising():
            context = rank_context()
        crew = Crew(signals)
        try:
            crew.start(context, _orders(work, num_processes, log_file))
            crew.watch()
        finally:
            crew.end()
        result: Result = crew.result()
        return result


def _orders(work: bytes, num_processes: int, log_file: Path | None) -> list[Order]:
    outputs = tuple(Descriptor(number) for number in (1, 2) if _is_open(number))
    level = min(logging.getLogger().getEffectiveLevel(), logging.INFO)
    port = free_port()
    environment = dict(os.environ)
    return [
        Order(rank, num_processes, port, environment, outputs, log_file, level, work)
        for rank in range(num_processes)
    ]


def free_port() -> int:
    """Return a port of this machine that nobody listens at.

    It lies below the ports that the system hands out by itself, so that no outgoing connection takes it
    between this choice and rank 0's use of it.
    """
    lowest_automatic = int(_PORT_RANGE.read_text().split()[0]) if _PORT_RANGE.exists() else 0
    for _ in range(_PORT_TRIES if lowest_automatic > _FIRST_PORT else 0):
        port = _FIRST_PORT + secrets.randbelow(lowest_automatic - _FIRST_PORT)
        if _bound_port(port):
            return port
    return _bound_port(0)


def _bound_port(port: int) -> int:
    """Return the port that could be bound for a moment (0 asks the system for one), or 0 when it is taken."""
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
        number: int = probe.getsockname()[1]
        return number


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
