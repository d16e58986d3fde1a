"""The live display of a terminal: a progress bar and a table of tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mftrun.tracking import text
from mftrun.tracking.progress import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_FRAME_LINES = 10
"""Lines of the display besides its task rows, and a little air for the shell."""

_NUMBERS_WIDTH = 44
"""Columns of the task table besides the names."""


def render(
    progress: Progress, name: str, now: float, max_tasks: int, width: int, height: int
) -> RenderableType:
    """The display at clock `now`.

    Args:
        progress: The run's state.
        name: The run's name.
        now: Clock, in seconds, as `progress` knows it.
        max_tasks: Most task rows to show.
        width: Columns of the terminal.
        height: Lines of the terminal; the display fits in.
    """
    from rich.console import Group

    rows = max(1, min(max_tasks, height - _FRAME_LINES))
    return Group(_bar(progress, name, now, width), _facts(progress), _tasks(progress, rows, width))


def _bar(progress: Progress, name: str, now: float, width: int) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 1), expand=False)
    done = f"{progress.step}/{progress.total_steps}"
    spent, left = text.duration(now - progress.started), text.duration(progress.remaining(now))
    label, times = text.short_name(name, 24), f"{spent} elapsed, {left} left"
    room = max(8, min(40, width - len(label) - len(done) - len(times) - 5))
    bar = ProgressBar(total=max(1, progress.total_steps), completed=progress.step, width=room)
    line.add_row(Text(label, style="bold"), bar, Text(done), Text(times, style="dim"))
    return line


def _facts(progress: Progress) -> RenderableType:
    from rich.text import Text

    formats = {
        "train/loss": ("loss", text.loss),
        "benchmark/pass@1": ("pass@1", text.share),
        "lr": ("lr", lambda value: f"{value:.2e}"),
        "tokens_per_second": ("tok/s", text.short_count),
        "grad_norm": ("grad norm", lambda value: f"{value:.3g}"),
        "epoch": ("epoch", lambda value: f"{value:.2f}"),
        "memory_gib": ("GiB", lambda value: f"{value:.1f}"),
    }
    latest = progress.latest
    facts = [f"{name} {form(latest[key])}" for key, (name, form) in formats.items() if key in latest]
    return Text("  ".join(facts) or "waiting for the first step", no_wrap=True, overflow="ellipsis")


def _tasks(progress: Progress, rows: int, width: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = progress.shown(rows)
    short = text.short_names(list(progress.tasks), max(10, min(40, width - _NUMBERS_WIDTH)))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
    table.add_column("task", no_wrap=True, min_width=10)
    for name in ("train", "valid", "best", "weight"):
        table.add_column(name, justify="right", no_wrap=True, min_width=8)
    for task in shown:
        table.add_row(Text(short[task]), *map(Text, _cells(progress, task)))
    if len(progress.tasks) > 1:
        means = (text.loss(progress.mean_of("train")), text.loss(progress.mean_of("valid")), "", "")
        table.add_row("mean", *map(Text, means), style="bold")
    if hidden := len(progress.tasks) - len(shown):
        table.caption = f" mean of all tasks; {hidden} better ones not shown"
    return table


def _cells(progress: Progress, task: str) -> list[str]:
    weight = progress.latest.get(f"weight/{task}")
    losses = (progress.loss_of("train", task), progress.loss_of("valid", task), progress.best.get(task))
    return [*map(text.loss, losses), "-" if weight is None else f"{weight:.3g}"]
