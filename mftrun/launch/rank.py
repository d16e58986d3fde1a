"""Inside a rank: take over the parent's surroundings, do the work, report."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from mftrun.launch import report
from mftrun.launch.logs import configure_logging
from mftrun.launch.seats import Seat, World
from mftrun.launch.stop import EXIT_CODE, StopRequest
from mftrun.launch.surroundings import GROUP, cleaned

Worker = Callable[["RankContext", Any], Any]

ORPHAN_GRACE = 60.0
"""Seconds in which a rank whose parent is gone may still save."""

_GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


@dataclass(frozen=True)
class RankContext:
    """Who this rank is.

    Attributes:
        rank: Its number over all machines, from 0.
        local_rank: Its number on this machine, from 0.
        local_world_size: How many ranks this machine has.
        world_size: How many ranks there are on all machines.
        master_addr: Address at which rank 0 gathers the others.
        master_port: Port there.
        stop: What the outside has asked of this rank.
    """

    rank: int
    local_rank: int
    local_world_size: int
    world_size: int
    master_addr: str
    master_port: int
    stop: StopRequest

    def environment(self) -> dict[str, str]:
        """Return the variables from which a process group is made; none for a lone rank."""
        if self.world_size == 1:
            return {}
        values = (
            self.rank,
            self.local_rank,
            self.world_size,
            self.local_world_size,
            self.master_addr,
            self.master_port,
        )
        return dict(zip(GROUP, map(str, values), strict=True))


class Descriptor:
    """An open file of the parent, on its way into a rank.

    Args:
        number: Its number, the same in both processes.
    """

    def __init__(self, number: int, received: int | None = None) -> None:
        self.number = number
        self._received = received

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive_descriptor, (self.number, DupFd(self.number))

    def adopt(self) -> None:
        """Make it this process's file of that number."""
        if self._received is not None and self._received != self.number:
            os.dup2(self._received, self.number)
            os.close(self._received)


def _receive_descriptor(number: int, duplicate: Any) -> Descriptor:
    return Descriptor(number, duplicate.detach())


@dataclass(frozen=True)
class Order:
    """What the parent hands to one rank.

    Attributes:
        seat: The rank's numbers.
        world: All ranks.
        interface: The network interface that leads to the other machines, where there are others.
        environment: The parent's environment.
        outputs: The parent's standard output and error.
        log_file: The run's log.
        log_level: The lowest level that rank 0 logs.
        work: Pickled pair of worker and payload; opened only when all else stands.
    """

    seat: Seat
    world: World
    interface: str | None
    environment: Mapping[str, str]
    outputs: tuple[Descriptor, ...]
    log_file: Path | None
    log_level: int
    work: bytes


def rank_main(order: Order, writer: Connection) -> None:
    """Run one rank: the target of its process."""
    seat, world = order.seat, order.world
    context = RankContext(
        rank=seat.rank,
        local_rank=seat.local_rank,
        local_world_size=seat.local_world_size,
        world_size=world.size,
        master_addr=world.address,
        master_port=world.port,
        stop=StopRequest(),
    )
    try:
        outcome = _outcome(order, context)
        writer.send_bytes(pickle.dumps(outcome))
    except BrokenPipeError:
        logging.getLogger(__name__).warning("the parent process is gone: nobody takes the result")
    finally:
        logging.shutdown()


def _outcome(order: Order, context: RankContext) -> report.Report:
    try:
        context.stop.install()
        _take_over(order, context)
        worker, payload = pickle.loads(order.work)
        return report.of_result(context.rank, worker(context, payload))
    except BaseException as error:
        if context.stop.ended:
            raise SystemExit(EXIT_CODE) from None
        return report.of_error(context.rank, error.with_traceback(_without_first(error)))


def _without_first(error: BaseException) -> Any:
    return error.__traceback__.tb_next if error.__traceback__ else None


def _take_over(order: Order, context: RankContext) -> None:
    threading.Thread(target=_watch_parent, name="watch-parent", daemon=True).start()
    _set_environment(order, context)
    _set_outputs(order.outputs)
    _share_cores(context.local_world_size)
    configure_logging(context.rank, order.log_file, order.log_level)


def _set_environment(order: Order, context: RankContext) -> None:
    os.environ.clear()
    os.environ.update(cleaned(order.environment))
    os.environ.update(context.environment())
    if order.interface is not None:
        os.environ.setdefault(_GLOO_INTERFACE, order.interface)


def _set_outputs(outputs: tuple[Descriptor, ...]) -> None:
    for output in outputs:
        output.adopt()
    for stream in (sys.stdout, sys.stderr):
        # Whether lines are flushed was decided by the files of the fork server.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _share_cores(local_world_size: int) -> None:
    """Ranks of one machine share its cores, unless the user has divided them."""
    if local_world_size == 1 or "OMP_NUM_THREADS" in os.environ:
        return
    threads = max(1, len(os.sched_getaffinity(0)) // local_world_size)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _watch_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a rank is started by a parent"
    connection.wait([parent.sentinel])
    logging.getLogger(__name__).warning("the parent process is gone: stopping")
    os.kill(os.getpid(), signal.SIGTERM)
    # The main thread may wait for a rank that is gone too, where no handler runs.
    time.sleep(ORPHAN_GRACE)
    os._exit(EXIT_CODE)
