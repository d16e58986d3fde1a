"""The ways, besides a user's error, in which `run_ranks` ends without a result."""

from __future__ import annotations

import signal
from typing import Any

from mftrun.errors import MftrunError

_HINTS = {
    signal.SIGKILL: "the system may have run out of memory: see `dmesg`, or lower train.micro_batch_size",
    signal.SIGBUS: "the shared memory or the disk may be full: see `df -h /dev/shm`",
    signal.SIGSEGV: "a compiled library crashed: run again with PYTHONFAULTHANDLER=1 to see where",
}


class Stopped(MftrunError):  # noqa: N818 - not an error: what was asked for
    """The run was asked to stop by a signal, and did.

    Args:
        signum: The first stop signal that the parent received.
        result: What rank 0 returned after stopping early; None when it was ended before that.
    """

    def __init__(self, signum: int, result: Any = None) -> None:
        super().__init__(signum, result)
        self.signum = signum
        self.result = result

    @property
    def exit_code(self) -> int:
        """The exit code a shell expects: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signum

    def __str__(self) -> str:
        name = "Ctrl-C" if self.signum == signal.SIGINT else signal.Signals(self.signum).name
        return f"stopped by {name}"


class NodeLost(Stopped):
    """An agent is gone, in a job of a scheduler: it leaves as if it had been told to, and comes back.

    Args:
        loss: Who is gone, and what that may mean.
    """

    def __init__(self, loss: str) -> None:
        super().__init__(signal.SIGTERM)
        self.args = (loss,)  # what pickles
        self.loss = loss

    def __str__(self) -> str:
        return self.loss


class RankFailed(RuntimeError):  # noqa: N818
    """A rank ended by something that is not a user's error.

    It holds text only, so that it survives pickling on its way through job launchers.

    Args:
        rank: The rank that failed first.
        reason: The traceback of its exception, or how its process ended.
    """

    def __init__(self, rank: int, reason: str) -> None:
        super().__init__(rank, reason)
        self.rank = rank
        self.reason = reason

    def __str__(self) -> str:
        return f"rank {self.rank} failed: {self.reason}"


def describe_exit(exitcode: int) -> str:
    """Say how a process that reported nothing came to its end, from its exit code."""
    if exitcode >= 0:
        return f"its process ended with exit code {exitcode} before its work was done"
    try:
        signum = signal.Signals(-exitcode)
    except ValueError:
        return f"its process was ended by signal {-exitcode}"
    hint = f" ({_HINTS[signum]})" if signum in _HINTS else ""
    return f"its process was ended by {signum.name}{hint}"
