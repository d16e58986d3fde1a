"""The entry: run one function in every rank, once, or until it has come to its end in spite of crashes."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

from mftrun.launch.crew import Crew
from mftrun.launch.errors import RankFailed
from mftrun.launch.link import Launch
from mftrun.launch.network import free_port, interface_to
from mftrun.launch.place import Place
from mftrun.launch.rank import Descriptor, Order, RankContext
from mftrun.launch.seats import Seat, World, numbered
from mftrun.launch.server import rank_context
from mftrun.launch.signals import parent_signals
from mftrun.launch.team import Team

Payload = TypeVar("Payload")
Result = TypeVar("Result")

_LOOPBACK = "127.0.0.1"
_log = logging.getLogger("mftrun.launch")


def run_ranks(
    worker: Callable[[RankContext, Payload], Result],
    payload: Payload,
    *,
    num_processes: int,
    log_file: Path | None,
) -> Result:
    """Run `worker(context, payload)` in every rank on this machine and return what rank 0 returned.

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
    ranks = Ranks(num_processes, log_file)
    return ranks.run(worker, lambda: nullcontext(payload))


class Ranks:
    """Where the ranks of a run are started, and how often.

    Args:
        num_processes: Ranks of this agent.
        log_file: The run's one log, to which all ranks append.
        team: The other agents, if there are any.
        asked: Ranks that the user wants of every node; None leaves it to their GPUs.
        max_restarts: How often all ranks are started again after a crash.
    """

    def __init__(
        self,
        num_processes: int,
        log_file: Path | None,
        *,
        team: Team | None = None,
        asked: int | None = None,
        max_restarts: int = 0,
    ) -> None:
        self._num_processes = num_processes
        self._log_file = log_file
        self._team = team
        self._asked = asked
        self._max_restarts = max_restarts

    def run(
        self,
        worker: Callable[[RankContext, Payload], Result],
        attempt: Callable[[], AbstractContextManager[Payload]],
    ) -> Result:
        """Run `worker(context, payload)` in every rank and return what rank 0 returned; see `run_ranks`.

        A crash, which is anything but a user's error, is followed by another attempt while there is one left.

        Args:
            worker: A function at the top level of a module.
            attempt: Makes the payload of one attempt, and what it needs beside the ranks while they run.
        """
        left = self._max_restarts
        while True:
            try:
                with attempt() as payload:
                    return self._once(worker, payload)
            except Exception as error:
                self._tell(error)
                if not self._may_go_on(error, left):
                    raise
                number, left = self._max_restarts - left + 1, left - 1
                _log.error("%s", error)
                _log.warning("starting all ranks again (restart %d of %d)", number, self._max_restarts)

    def _may_go_on(self, error: Exception, left: int) -> bool:
        whole = self._team is None or self._team.is_whole
        return isinstance(error, RankFailed) and left > 0 and whole

    def _tell(self, error: Exception) -> None:
        if self._team is not None:
            self._team.tell(str(error))

    def _once(self, worker: Callable[[RankContext, Payload], Result], payload: Payload) -> Result:
        work = pickle.dumps((worker, payload))
        with parent_signals(os.environ) as signals:
            with signals.raising():
                context = rank_context()
                own, *others = self._launches(work)
            team = self._team
            agents = [] if team is None else team.agents
            place = None if team is None else team.place
            joined = place is not None and place.seat is not None
            crew = Crew(signals, agents, interrupts_repeat=joined)
            try:
                crew.start(context, orders_of(own, place))
                for agent, launch in zip(agents, others, strict=True):
                    crew.join(agent.launch(launch))
                crew.watch()
            finally:
                crew.end()
            result: Result = crew.result()
            return result

    def _launches(self, work: bytes) -> list[Launch]:
        """What every agent is to start, this one first."""
        seats = self._seats()
        address = _LOOPBACK if self._team is None else self._team.place.address
        world = World(sum(map(len, seats)), address, free_port())
        level = min(logging.getLogger().getEffectiveLevel(), logging.INFO)
        return [Launch(some, world, work, self._log_file, level) for some in seats]

    def _seats(self) -> list[list[Seat]]:
        if self._team is None:
            return numbered([self._num_processes])
        self._team.gather()
        return self._team.seats(self._num_processes, self._asked)


def orders_of(launch: Launch, place: Place | None) -> list[Order]:
    """What an agent hands to each rank that it is to start.

    Args:
        launch: Which ranks.
        place: The agent's; None for one that is alone.
    """
    outputs = tuple(Descriptor(number) for number in (1, 2) if _is_open(number))
    interface = interface_to(place.address, place.port) if place and place.spans_machines else None
    surroundings = (interface, dict(os.environ), outputs, launch.log_file, launch.log_level)
    return [Order(seat, launch.world, *surroundings, launch.work) for seat in launch.seats]


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
