"""The comparison on a console of any width, and as a file for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mftrun.compare.columns import Column, columns, group_rows, of_same_tasks
from mftrun.compare.comparison import Comparison
from mftrun.compare.result import RunResult
from mftrun.tracking import text

if TYPE_CHECKING:
    from rich.table import Table

_NAME_WIDTH = 12
_SETTING_WIDTH = 28
_GAP = 2
_EDGES = 3
_BEST = "*"


def tables(comparison: Comparison, width: int) -> list[Table]:
    """The table of runs, and that over seeds where runs differ in their seed only.

    Args:
        comparison: The runs.
        width: Columns of the console.
    """
    found = [_runs(comparison, width)]
    return [*found, _groups(comparison, width)] if comparison.groups else found


def notes(comparison: Comparison, width: int) -> list[str]:
    """What belongs under the tables: what the narrow console lost, and what is wrong with which run."""
    shown = {one.name for one in _fitting(comparison, width)}
    lost = [one.name for one in columns(comparison) if one.name not in shown]
    told = [f"{_BEST} lowest loss, shortest time or highest speed of its column; @ the step of it"]
    if lost:
        told.append(f"left out, as the console is narrow: {', '.join(lost)}")
    others = [
        one.label for one in comparison.results if one.best and one not in of_same_tasks(comparison.results)
    ]
    if others:
        told.append(f"of other tasks, so that their means do not compare: {', '.join(others)}")
    told += comparison.notes
    return told + [f"{one.label}: {note}" for one in comparison.results for note in one.notes]


def as_csv(comparison: Comparison) -> str:
    """One line a run: settings, each task's lowest loss and its step, and the rest."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    used = columns(comparison)
    heads = [part for one in used for part in _csv_heads(one)]
    writer.writerow([*heads, "step", "total_steps", "path", "notes"])
    for result in comparison.results:
        cells = [part for one in used for part in _csv_cells(one, result)]
        last = [result.step, result.total_steps, result.path, "; ".join(result.notes)]
        writer.writerow(["" if cell is None else cell for cell in (*cells, *last)])
    return stream.getvalue()


def _csv_heads(column: Column) -> list[str]:
    return [column.name, f"{column.name} best step"] if column.task is not None else [column.name]


def _csv_cells(column: Column, result: RunResult) -> list[object]:
    if column.task is None:
        return [column.value(result)]
    found = result.tasks.get(column.task)
    return [None, None] if found is None else [found.loss, found.step]


def _runs(comparison: Comparison, width: int) -> Table:
    from rich.text import Text

    used = _fitting(comparison, width)
    made = _table([_heading(one) for one in used])
    names = _short_labels(comparison, _room(comparison, used, width))
    marks = [one.best_of(comparison.results) for one in used]
    for result, name in zip(comparison.results, names, strict=True):
        cells = [_cell(one, result, mark) for one, mark in zip(used[1:], marks[1:], strict=True)]
        made.add_row(Text(name), *(Text(cell, style="bold green" if _BEST in cell else "") for cell in cells))
    return made


def _groups(comparison: Comparison, width: int) -> Table:
    from rich.text import Text

    heads, rows, best = group_rows(comparison)
    marked = [
        [f"{cell} {_BEST}" if best[place] == number else cell for place, cell in enumerate(row)]
        for number, row in enumerate(rows)
    ]
    shown = _places_that_fit([heads, *marked], len(comparison.tasks), width)
    made = _table(["over seeds", *(heads[place] for place in shown[1:])])
    for row in marked:
        cells = (row[place] for place in shown)
        made.add_row(*(Text(cell, style="bold green" if _BEST in cell else "") for cell in cells))
    return made


def _places_that_fit(rows: Sequence[Sequence[str]], tasks: int, width: int) -> list[int]:
    """Columns of the table over seeds; those of tasks, which come third, give way from the last on."""
    widths = [max(map(len, column)) + _GAP for column in zip(*rows, strict=True)]
    shown = list(range(len(widths)))
    for place in range(1 + tasks, 1, -1):
        if sum(widths[one] for one in shown) > width - _EDGES:
            shown.remove(place)
    return shown


def _table(heads: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, head in enumerate(heads):
        made.add_column(Text(head), justify="right" if number else "left", overflow="fold")
    return made


def _heading(column: Column) -> str:
    return text.short_name(column.name, _SETTING_WIDTH)


def _cell(column: Column, result: RunResult, winners: Sequence[RunResult]) -> str:
    value = column.value(result)
    shown = text.short_name(column.show(value), _SETTING_WIDTH)
    mark = _BEST if result in winners else ""
    note = column.note(result) if value is not None else ""
    return " ".join(part for part in (f"{shown}{mark}", note) if part)


def _fitting(comparison: Comparison, width: int) -> list[Column]:
    """The columns that there is room for."""
    used = columns(comparison)
    while len(used) > 1 and _room(comparison, used, width) < _NAME_WIDTH:
        used.remove(min(reversed(used), key=lambda one: one.keep))
    return used


def _room(comparison: Comparison, used: Sequence[Column], width: int) -> int:
    """What the others leave for the runs' names."""
    return width - _EDGES - sum(_width(comparison, one) + _GAP for one in used[1:])


def _width(comparison: Comparison, column: Column) -> int:
    cells = [len(_cell(column, result, column.best_of(comparison.results))) for result in comparison.results]
    return max([len(_heading(column)), *cells])


def _short_labels(comparison: Comparison, room: int) -> list[str]:
    labels = [result.label for result in comparison.results]
    width = max(room, _NAME_WIDTH)
    return list(text.short_names(labels, width).values())
