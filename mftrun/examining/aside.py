"""Work of the first rank that the others wait for, without waiting in one long message."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mftrun.distributed import Ranks
    from mftrun.launch import StopRequest

Result = TypeVar("Result")
_LOOK = 0.1  # seconds between two looks at the work


def done_aside(work: Callable[[threading.Event], Result], ranks: Ranks, stop: StopRequest) -> Result | None:
    """Does work on the first rank, in a thread; every rank must call it.

    It may take longer than a message among ranks may. A signal to stop reaches it at once.

    Args:
        work: Is told by the event that nobody waits any more.
        ranks: Those that wait.
        stop: Looked at meanwhile.

    Returns:
        What the work came to, on every rank; None when a signal cut it short on some rank.

    Raises:
        Exception: What the work raised, on the first rank.
    """
    given_up = threading.Event()
    future = _started(work, given_up) if ranks.is_main else None
    while ranks.any(future is not None and not _is_over(future)):
        if ranks.any(stop.stop_requested):
            given_up.set()
            return None
    found: Result = ranks.gather(None if future is None else future.result())[0]
    return found


def _started(work: Callable[[threading.Event], Result], given_up: threading.Event) -> Future[Result]:
    future: Future[Result] = Future()

    def do() -> None:
        try:
            future.set_result(work(given_up))
        except BaseException as error:  # for whoever waits
            future.set_exception(error)

    threading.Thread(target=do, name="aside", daemon=True).start()
    return future


def _is_over(future: Future[Result]) -> bool:
    try:
        future.exception(_LOOK)
    except NotYet:
        return False
    return True
