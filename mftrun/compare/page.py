"""The comparison as one page that needs nothing else: no network, no library, no server."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from mftrun.compare.columns import Column, columns, group_rows
from mftrun.compare.comparison import Comparison
from mftrun.compare.curves import curve_data
from mftrun.compare.result import RunResult

_PARTS = Path(__file__).parent / "parts"
_LONG_NAME = 10
_BETWEEN = re.compile(r"[_./-]")


def page(comparison: Comparison, made: datetime.datetime) -> str:
    """The page, as HTML.

    Args:
        comparison: The runs.
        made: When, for its heading.
    """
    runs = comparison.results
    done = sum(result.state.is_finished for result in runs)
    return Template(_part("page.html")).substitute(
        style=_part("page.css"),
        script=_part("page.js"),
        title=escape(comparison.folder.name or "runs"),
        about=escape(
            f"{_counted(len(runs), 'run')}, {done} finished, {_counted(len(comparison.tasks), 'task')}"
            f" · {comparison.folder} · {made:%Y-%m-%d %H:%M}"
        ),
        notes=_notes(comparison),
        seeds=_seeds(comparison),
        runs=_runs(comparison),
        data=_embedded({"tasks": comparison.tasks, "runs": _data(comparison)}),
    )


def _data(comparison: Comparison) -> list[dict[str, object]]:
    curves = curve_data(comparison)
    return [
        {"label": result.label, "settings": dict(result.settings), **own}
        for result, own in zip(comparison.results, curves, strict=True)
    ]


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _embedded(data: object) -> str:
    """JSON that no text in it can end: inside a script element only `<` could."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _notes(comparison: Comparison) -> str:
    lines = [f"<li>{escape(note)}</li>" for note in comparison.notes]
    lines += [
        f"<li><b>{escape(one.label)}</b> {escape(note)}</li>"
        for one in comparison.results
        for note in one.notes
    ]
    return f'<ul class="notes">{"".join(lines)}</ul>' if lines else ""


def _runs(comparison: Comparison) -> str:
    used = columns(comparison)
    best = [one.best_of(comparison.results) for one in used]
    rows = [
        f'<tr data-run="{number}">{_row(used, best, result)}</tr>'
        for number, result in enumerate(comparison.results)
    ]
    return _table("runs", [one.name for one in used], rows)


def _row(used: Sequence[Column], best: Sequence[list[RunResult]], result: RunResult) -> str:
    return "".join(
        _cell(one.show(one.value(result)), one.value(result), one.note(result), is_best=result in winners)
        for one, winners in zip(used, best, strict=True)
    )


def _cell(shown: str, value: object, note: str = "", *, is_best: bool) -> str:
    key = "" if value is None else escape(str(value))
    mark = ' class="best"' if is_best else ""
    small = f" <small>{escape(note)}</small>" if note and value is not None else ""
    return f'<td data-key="{key}"{mark}>{escape(shown)}{small}</td>'


def _seeds(comparison: Comparison) -> str:
    if not comparison.groups:
        return ""
    heads, rows, best = group_rows(comparison)
    marked = (
        "".join(_cell(cell, _sort_key(cell), is_best=best[place] == number) for place, cell in enumerate(row))
        for number, row in enumerate(rows)
    )
    table = _table("seeds", heads, [f"<tr>{row}</tr>" for row in marked])
    return f"<h2>Over seeds</h2><p>Mean ± sample standard deviation of finished runs.</p>{table}"


def _sort_key(cell: str) -> object:
    """The mean in front of its deviation."""
    try:
        return float(cell.partition(" ")[0])
    except ValueError:
        return cell


def _breakable(name: str) -> str:
    """A long name may go over several lines, so that more columns are seen."""
    return _BETWEEN.sub(r"\g<0><wbr>", escape(name)) if len(name) > _LONG_NAME else escape(name)


def _table(name: str, heads: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f'<th scope="col"><button>{_breakable(one)}</button></th>' for one in heads)
    return (
        f'<div class="wide"><table id="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
