"""From the configuration and the environment to where the ranks of a run are started."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mftrun.errors import ConfigError
from mftrun.launch.place import Place, node_place, outer_place
from mftrun.launch.supervisor import Ranks
from mftrun.launch.surroundings import unheard_wishes
from mftrun.launch.team import lead

if TYPE_CHECKING:
    from mftrun.distributed.machines import Machines

_log = logging.getLogger("mftrun.launch")


def ranks_for(machines: Machines, log_file: Path | None) -> Ranks:
    """Where the ranks of a run are started: on this machine, on several, or where an outer launcher says.

    Args:
        machines: The run's strategy.
        log_file: The run's one log.

    Raises:
        ConfigError: Strategy, configuration and outer launcher contradict each other.
    """
    for wish in unheard_wishes(os.environ):
        _log.warning("%s", wish)
    place = outer_place(os.environ)
    joined = machines if place is None else _joined(machines, place)
    place = place or node_place(machines)
    if place is not None and place.index > 0:
        raise ConfigError(
            "distributed.node_rank",
            f"is {place.index}, and is read from the command line alone: a machine that follows makes no "
            "folder, so it must be known before the rest",
        )
    return Ranks(
        joined.processes(),
        log_file,
        team=None if place is None else lead(place, sys.argv[1:]),
        asked=machines.num_processes,
        max_restarts=machines.max_restarts,
    )


def _joined(machines: Machines, place: Place) -> Machines:
    """The same strategy with as many ranks as an outer launcher has started; it may refuse them."""
    if place.seat is None:
        return _on_nodes(machines, place)
    here = place.seat.local_world_size
    if machines.num_nodes > 1:
        raise ConfigError(
            "distributed.num_nodes",
            f"is {machines.num_nodes}, and an outer launcher has already started {place.count} processes; "
            "leave one of them out",
        )
    if machines.num_processes not in (None, here):
        raise ConfigError(
            "distributed.num_processes",
            f"is {machines.num_processes}, and the outer launcher has started {here} processes on this "
            "machine; leave it out",
        )
    nodes = -(-place.count // here)
    return replace(machines, num_processes=here, num_nodes=nodes, main_address=place.address)


def _on_nodes(machines: Machines, place: Place) -> Machines:
    """The same strategy on the nodes of a job of Slurm; each has as many ranks as the configuration says."""
    if machines.num_nodes not in (1, place.count):
        raise ConfigError(
            "distributed.num_nodes",
            f"is {machines.num_nodes}, and the job has {place.count} nodes; leave it out, Slurm says it",
        )
    for key in ("main_address", "main_port"):
        if getattr(machines, key) != getattr(type(machines), key):
            raise ConfigError(f"distributed.{key}", "is chosen from the job's nodes and number; leave it out")
    return replace(machines, num_nodes=place.count, node_rank=place.index, main_address=place.address)
