"""What a rank tells its parent when its work is over: a result, or how it failed."""

from __future__ import annotations

import enum
import pickle
import re
import traceback
from dataclasses import dataclass
from typing import Any

from mftrun.errors import MftrunError
from mftrun.launch.errors import RankFailed

_COLLATERAL_TEXT = re.compile(r"\b(gloo|nccl|connection (closed|reset|refused)|broken pipe)\b", re.IGNORECASE)


class Kind(enum.IntEnum):
    """How a rank ended; of several failures, the smallest value is the one to tell."""

    USER_ERROR = 0
    ERROR = 1
    LOST = 2
    """Not by itself: the agent that watched it is gone."""
    COLLATERAL = 3
    RESULT = 4


@dataclass(frozen=True)
class Report:
    """A rank's last word.

    Attributes:
        rank: Who sent it.
        kind: A result or one of the failures.
        content: Pickled: the result, or a user's error; empty otherwise.
        reason: The failure as text; empty for a result.
    """

    rank: int
    kind: Kind
    content: bytes = b""
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether it tells of a failure."""
        return self.kind is not Kind.RESULT

    def result(self) -> Any:
        """Return the worker's return value (None for every rank but 0)."""
        return pickle.loads(self.content)

    def error(self) -> Exception:
        """Return what the parent raises: the user's error as itself, anything else as `RankFailed`."""
        if self.kind is not Kind.USER_ERROR:
            return RankFailed(self.rank, self.reason)
        error: Exception = pickle.loads(self.content)
        return error


def of_result(rank: int, value: Any) -> Report:
    """Report a result; only rank 0's value travels."""
    return Report(rank, Kind.RESULT, pickle.dumps(value if rank == 0 else None))


def of_error(rank: int, error: BaseException) -> Report:
    """Report an exception: a user's error that survives pickling as itself, others as their traceback."""
    content = _pickled(error) if isinstance(error, MftrunError) else b""
    if content:
        return Report(rank, Kind.USER_ERROR, content)
    kind = Kind.COLLATERAL if _is_collateral(error) else Kind.ERROR
    return Report(rank, kind, reason="".join(traceback.format_exception(error)).rstrip())


def of_death(rank: int, reason: str) -> Report:
    """Report, in its place, a rank that ended without a word."""
    return Report(rank, Kind.ERROR, reason=reason)


def of_loss(rank: int, reason: str, *, leaving: bool) -> Report:
    """Report, in its place, a rank of an agent that is gone; one that was leaving has not failed."""
    return Report(rank, Kind.COLLATERAL if leaving else Kind.LOST, reason=reason)


def _pickled(error: MftrunError) -> bytes:
    """Return the pickled error, or nothing when it would not come back as the same one."""
    try:
        content = pickle.dumps(error)
        copy = pickle.loads(content)
    except Exception:
        return b""
    return content if type(copy) is type(error) and str(copy) == str(error) else b""


def _is_collateral(error: BaseException) -> bool:
    """Whether the error looks like the consequence of another rank's end."""
    if isinstance(error, ConnectionError | EOFError):
        return True
    is_distributed = any(c.__name__ == "DistError" for c in type(error).__mro__)
    return is_distributed or (isinstance(error, RuntimeError) and bool(_COLLATERAL_TEXT.search(str(error))))
