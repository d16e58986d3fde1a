"""The run on the user's console: a live display on a terminal, plain lines elsewhere and in the log."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mftrun.tracking import live, terminal
from mftrun.tracking.base import RunInfo
from mftrun.tracking.progress import Progress, plain_lines
from mftrun.tracking.summary import Summary, closing_lines, plain_text, table

if TYPE_CHECKING:
    from rich.console import Console as Terminal
    from rich.live import Live

_plain = logging.getLogger(terminal.PLAIN_LOGGER)


class Console:
    """Progress, losses of every task, and at the end the table of results.

    Every record also becomes a plain line of the log, so that a log file tells the same story.

    Args:
        live: Whether to show the live display; None shows it when stderr is a terminal that can.
        max_tasks: Tasks shown at a time; of more, the worst, and the mean of all.
    """

    def __init__(self, live: bool | None = None, max_tasks: int = 12) -> None:
        self._wanted = live
        self._max_tasks = max_tasks
        self._progress: Progress | None = None
        self._terminal: Terminal | None = None
        self._live: Live | None = None
        self._undo = contextlib.ExitStack()
        self._clock: Callable[[], float] = time.monotonic

    def check(self) -> None:
        """Nothing to refuse."""

    def start(self, run: RunInfo) -> None:
        """Opens the display, or leaves the console to plain lines."""
        self._progress = Progress(run.tasks, run.total_steps, run.resumed_step or 0, self._clock())
        if self._wanted is not False and sys.stderr is not None:
            self._terminal = _capable_terminal(forced=self._wanted is True)
        if self._terminal is not None:
            self._live = self._open_live(self._terminal, self._progress, run.label)

    def log(self, step: int, record: Mapping[str, float]) -> None:
        """Shows one record."""
        assert self._progress is not None, "start() comes first"
        now = self._clock()
        self._progress.update(step, record, now)
        for line in plain_lines(self._progress, record, now, self._max_tasks):
            _plain.info(line)

    def finish(self, summary: Summary | None, exit_code: int) -> None:
        """Closes the display and shows the table of results; without results the last display stays."""
        with self._undo:
            self._close_live(transient=summary is not None)
            if summary is not None:
                _plain.info("results\n%s", plain_text(summary))
                self._show_table(summary)

    def _open_live(self, console: Terminal, progress: Progress, name: str) -> Live:
        from rich.live import Live

        handlers = terminal.terminal_handlers()
        shown = Live(
            console=console,
            get_renderable=lambda: live.render(
                progress, name, self._clock(), self._max_tasks, console.width, console.height
            ),
            refresh_per_second=4,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=True,
        )
        self._undo.enter_context(terminal.plain_lines_hidden())
        shown.start()
        console.show_cursor(True)  # a killed run must not leave the shell without one
        self._undo.enter_context(terminal.handlers_follow_streams(handlers))
        return shown

    def _close_live(self, transient: bool) -> None:
        shown, self._live = self._live, None
        if shown is not None:
            shown.transient = transient
            shown.stop()

    def _show_table(self, summary: Summary) -> None:
        if self._terminal is not None:
            lines = "\n".join(closing_lines(summary))
            self._terminal.print(table(summary, self._terminal.width))
            self._terminal.print(lines, markup=False, highlight=False, soft_wrap=True)


def _capable_terminal(forced: bool) -> Terminal | None:
    from rich.console import Console as Terminal

    console = Terminal(stderr=True, force_terminal=True if forced else None)
    return console if console.is_terminal and (forced or not console.is_dumb_terminal) else None
