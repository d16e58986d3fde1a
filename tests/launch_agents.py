"""One of several agents, as a program: `launch_agents.py INDEX COUNT ADDRESS PORT FOLDER WORKER…`.

The leader runs each worker in turn and says how that ended.
"""

import functools
import logging
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import launch_workers as workers
from launch_workers import say

from mftrun.distributed import machines
from mftrun.errors import MftrunError
from mftrun.launch import RankFailed, Ranks, Stopped, crew, follower, server
from mftrun.launch.place import Place
from mftrun.launch.seats import Seat
from mftrun.launch.team import dismiss_all, lead

RANKS = 2
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")


def seats(context, payload):
    """Every rank leaves its numbers."""
    seen = [os.environ[name] for name in VARIABLES]
    Path(payload["folder"], f"seat{context.rank}").write_text(" ".join(seen))


def seats_seen(context, payload):
    return [Path(payload["folder"], f"seat{rank}").read_text() for rank in range(context.world_size)]


def config_error(context, payload):
    fail_last(context, "config")


def value_error(context, payload):
    fail_last(context, "value")


def fail_last(context, name):
    if context.rank == context.world_size - 1:
        raise workers.ERRORS[name]
    workers.wait_for(lambda: False)


def killed(context, payload):
    if context.rank == context.world_size - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    workers.wait_for(lambda: False)


def killed_twice(context, payload):
    """Goes well at the third attempt."""
    if payload["attempt"] < 3:
        killed(context, payload)
    return f"attempt {payload['attempt']}"


def refused_at_once(context, payload):
    """A user's error is no crash: it comes back although there are restarts left."""
    fail_last(context, "data")


loop, stubborn = workers.loop, workers.stubborn


class Attempts:
    def __init__(self, folder):
        self.folder = folder
        self.number = 0

    @contextmanager
    def next(self):
        self.number += 1
        yield {"folder": self.folder, "attempt": self.number}


def led(place, folder, name):
    team = lead(place, sys.argv[6:])
    restarts = 2 if name in ("killed_twice", "refused_at_once") else 0
    ranks = Ranks(RANKS, Path(folder, "mftrun.log"), team=team, asked=RANKS, max_restarts=restarts)
    try:
        say("result", ranks.run(globals()[name], Attempts(folder).next))
    except Stopped as stopped:
        say("stopped", stopped.signum, stopped.result)
        return stopped.exit_code
    except (MftrunError, RankFailed) as error:
        say("failed", type(error).__name__, error)
        return 1
    return 0


def main(index, count, address, port, folder, *names):
    seat = Seat(index, index, count) if "LAUNCH_TEST_JOINED" in os.environ else None
    place = Place(index, count, address, port, seat)
    if index > 0:
        try:
            return follower.follow(place, names)
        except MftrunError as error:
            say("ended", error)
            return getattr(error, "exit_code", 1)
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    codes = [led(place, folder, name) for name in names]
    dismiss_all(codes[-1], "")
    return codes[-1]


if __name__ == "__main__":
    crew.ENDING, follower.LEADERLESS = 0.5, 2.0
    machines.visible_gpus = lambda: 0  # asking torch takes seconds
    server.warm_up = functools.partial(server.warm_up, ["mftrun.launch"])
    _, number, total, host, meeting, *rest = sys.argv
    sys.exit(main(int(number), int(total), host, int(meeting), *rest))
