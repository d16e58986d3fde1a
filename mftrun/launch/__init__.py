"""Ranks: the processes that train, started, watched and ended by one parent.

The parent composes the configuration and prepares the data; `run_ranks` then runs one function in every
rank and hands back what rank 0 returned. `errors` says how that can end, `server` where ranks come from,
`rank` what happens inside one, `stop` and `signals` how a run is asked to end, `supervisor` how all of
them are watched.
"""

from mftrun.launch.errors import RankFailed, Stopped
from mftrun.launch.logs import DATE_FORMAT, LOG_FORMAT, QUIET_LOGGERS, configure_logging
from mftrun.launch.rank import RankContext
from mftrun.launch.server import PRELOAD, warm_up
from mftrun.launch.stop import StopRequest
from mftrun.launch.supervisor import run_ranks

__all__ = [
    "DATE_FORMAT",
    "LOG_FORMAT",
    "PRELOAD",
    "QUIET_LOGGERS",
    "RankContext",
    "RankFailed",
    "StopRequest",
    "Stopped",
    "configure_logging",
    "run_ranks",
    "warm_up",
]
