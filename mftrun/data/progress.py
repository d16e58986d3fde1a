"""Progress of long work: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far a loop is.

    Args:
        title: What is done.
        total: Number of items.

    Yields:
        A function to call with the number of items done since the last call.
    """
    shown = _bar(title, total) if sys.stderr.isatty() else _lines(title, total)
    with shown as advance:
        yield advance


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _lines(title: str, total: int) -> Iterator[Callable[[int], None]]:
    done = shown = 0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        tenths = 10 * done // max(total, 1)
        if tenths > shown and total >= _WORTH_LINES:
            shown = tenths
            _log.info("%s: %s of %s", title, f"{done:,}", f"{total:,}")

    _log.info("%s: %s samples", title, f"{total:,}")
    yield advance


_WORTH_LINES = 20_000
