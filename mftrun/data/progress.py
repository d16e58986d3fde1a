"""Progress of long work: a bar on a terminal, now and then a log line elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY = 15.0
"""Seconds between two log lines."""

_log = logging.getLogger(__name__)


@contextmanager
def progress(
    title: str, total: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Shows how far a loop is, as a share of the whole.

    Args:
        title: What is done.
        total: The whole, in whatever units; 0 if it is not known.
        clock: Gives seconds.

    Yields:
        A function to call with the units done since the last call.
    """
    shown = _bar(title, total) if sys.stderr.isatty() else _lines(title, total, clock)
    with shown as advance:
        yield advance


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total or None)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _lines(title: str, total: int, clock: Callable[[], float]) -> Iterator[Callable[[int], None]]:
    done, last = 0, clock()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if clock() - last >= LINE_EVERY:
            last = clock()
            _log.info("%s: %s", title, f"{done / total:.0%}" if total else f"{done:,} done")

    _log.info("%s", title)
    yield advance
