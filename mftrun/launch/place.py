"""Which agent this process is: of several nodes, of Slurm's tasks, or of the processes of another launcher.

An *agent* is one `python -m mftrun` that starts and watches ranks of its own. Agent 0 leads: it alone has the
run's folder, the data and the log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mftrun.errors import ConfigError
from mftrun.launch.seats import Seat

if TYPE_CHECKING:
    from mftrun.distributed.machines import Machines

_USE_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"
# Below the ports that systems hand out by themselves.
_SLURM_PORTS = range(16384, 32768)


@dataclass(frozen=True)
class Place:
    """An agent among the others.

    Attributes:
        index: Its number; 0 leads.
        count: How many agents there are.
        address: Where the leader's machine is reached.
        port: Where agents meet: the leader listens there, or a store does that says where it listens.
        seat: The one rank of an agent that another launcher has started; None for a node, which has as many
            as it likes.
        store_key: Name under which a torchrun's store at `port` knows the leader's own port; None where the
            leader listens there itself.
        by_slurm: Whether the port follows from a job's number, and nobody can choose another.
    """

    index: int
    count: int
    address: str
    port: int
    seat: Seat | None = None
    store_key: str | None = None
    by_slurm: bool = field(default=False, compare=False)

    @property
    def kind(self) -> str:
        """What its agents are called."""
        return "node" if self.seat is None else "process"

    @property
    def speaks(self) -> bool:
        """Whether it says what happens: one agent of each machine does."""
        return self.seat is None or self.seat.local_rank == 0

    @property
    def spans_machines(self) -> bool:
        """Whether there are ranks on other machines."""
        return self.seat is None or self.seat.local_world_size < self.count


def node_place(machines: Machines) -> Place | None:
    """The place that the configuration gives; None for a machine alone."""
    if machines.num_nodes == 1:
        return None
    assert machines.main_address is not None, "Machines has refused it"
    return Place(machines.node_rank, machines.num_nodes, machines.main_address, machines.main_port)


def outer_place(environment: Mapping[str, str]) -> Place | None:
    """The place that torchrun, accelerate, deepspeed, srun or their like gives; None without them or for one.

    Raises:
        ConfigError: Some of their variables are missing, or are no numbers, or srun runs several on a node.
    """
    # Some schedulers set RANK and WORLD_SIZE once per machine: that is no rank yet.
    if "RANK" not in environment or "LOCAL_RANK" not in environment:
        return slurm_place(environment)
    count = _number(environment, "WORLD_SIZE")
    if count == 1:
        return None
    seat = Seat(
        _number(environment, "RANK"),
        _number(environment, "LOCAL_RANK"),
        _number(environment, "LOCAL_WORLD_SIZE", "LOCAL_SIZE"),
    )
    address, port = _variable(environment, "MASTER_ADDR"), _number(environment, "MASTER_PORT")
    return Place(seat.rank, count, address, port, seat, _store_key(environment))


def slurm_place(environment: Mapping[str, str]) -> Place | None:
    """The place of a task that `srun` has started, one on each node; None for one that is alone.

    A batch script itself, and a shell in an allocation, are no tasks of a step: what they start is alone.

    Raises:
        ConfigError: A node has several of the tasks.
    """
    if "SLURM_PROCID" not in environment or int(environment.get("SLURM_STEP_NUM_TASKS") or 1) == 1:
        return None
    names = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_JOB_ID", "SLURM_STEP_ID")
    tasks, nodes, job, step = (_number(environment, name) for name in names)
    if tasks != nodes:
        raise ConfigError(
            "--ntasks-per-node",
            f"must be 1, and srun has started {tasks} tasks on {nodes} nodes: each starts the ranks of its "
            "node itself, one for every GPU; see distributed.num_processes",
        )
    # Several steps of a job, and jobs that follow each other, meet at ports of their own.
    port = _SLURM_PORTS[(job * 8 + step) % len(_SLURM_PORTS)]
    host = first_host(_variable(environment, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"))
    return Place(_number(environment, "SLURM_NODEID"), nodes, host, port, by_slurm=True)


def first_host(nodelist: str) -> str:
    """The first of Slurm's names: `rack1-[03-05,9],login` → `rack1-03`."""
    one = re.match(r"(?:\[[^]]*]|[^,[])+", nodelist)
    return "" if one is None else re.sub(r"\[([^],-]+)[^]]*]", r"\1", one[0])


def _store_key(environment: Mapping[str, str]) -> str | None:
    """The store of a torchrun outlives a restart of its processes: each start has a name of its own."""
    if environment.get(_USE_AGENT_STORE) != "True":
        return None
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    return "/".join(["mftrun", *(environment.get(name, "") for name in names)])


def _variable(environment: Mapping[str, str], *names: str) -> str:
    found = [environment[name] for name in names if environment.get(name)]
    if not found:
        raise ConfigError(
            names[0],
            "is not in the environment, while RANK and LOCAL_RANK are; an outer launcher sets all of RANK, "
            "WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT; unset RANK to start alone",
        )
    return found[0]


def _number(environment: Mapping[str, str], *names: str) -> int:
    text = _variable(environment, *names)
    if not text.isdecimal():
        raise ConfigError(names[0], f"in the environment must be a number, not {text!r}")
    return int(text)
