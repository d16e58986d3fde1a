"""Ranks: the processes that train, started, watched and ended by one parent.

The parent composes the configuration and prepares the data; `run_ranks` then runs one function in every
rank and hands back what rank 0 returned. `errors` says how that can end, `server` where ranks come from,
`rank` what happens inside one, `stop` and `signals` how a run is asked to end, `crew` how all of them are
watched, `supervisor` how often they are started.

A run may have several parents, or *agents*: `place` says which one this process is, `team` and `remote` what
the leader knows of the others, `follower` what those do, `link` what they tell each other.
"""

from mftrun.launch.errors import RankFailed, Stopped
from mftrun.launch.joining import ranks_for
from mftrun.launch.logs import DATE_FORMAT, LOG_FORMAT, QUIET_LOGGERS, configure_logging
from mftrun.launch.rank import RankContext
from mftrun.launch.server import PRELOAD, warm_up
from mftrun.launch.stop import StopRequest
from mftrun.launch.supervisor import Ranks, run_ranks

__all__ = [
    "DATE_FORMAT",
    "LOG_FORMAT",
    "PRELOAD",
    "QUIET_LOGGERS",
    "RankContext",
    "RankFailed",
    "Ranks",
    "StopRequest",
    "Stopped",
    "configure_logging",
    "ranks_for",
    "run_ranks",
    "warm_up",
]
