"""The curves of a comparison as small data: as many points as a page can carry, and all of the minima."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mftrun.compare.comparison import Comparison
from mftrun.runs.reading import RunFolder
from mftrun.runs.records import TRAIN, VALID, WEIGHT

NUMBERS = 400_000
"""Numbers on a page, at most: about 3 MB."""

_FEWEST_POINTS = 20
_MOST_POINTS = 1000
_DIGITS = 5
_KINDS = {"valid": VALID, "train": TRAIN, "weight": WEIGHT}

Rows = Sequence[tuple[int, Mapping[str, float]]]


def curve_data(comparison: Comparison, numbers: int = NUMBERS) -> list[dict[str, Any]]:
    """For each run its curves.

    Args:
        comparison: The runs.
        numbers: How many numbers all of them may have together.

    Returns:
        For each run, by kind (`valid`, `train`, `weight`): `steps`, and `tasks`, task name to values beside
        the steps, None where the task has none. A run without curves of a kind lacks it.
    """
    curves = len(_KINDS) * (1 + len(comparison.tasks)) * max(1, len(comparison.runs))
    points = min(_MOST_POINTS, max(_FEWEST_POINTS, numbers // curves))
    return [_of_run(run, comparison.tasks, points) for run in comparison.runs]


def _of_run(run: RunFolder, tasks: Sequence[str], points: int) -> dict[str, Any]:
    found = {kind: _in_order(run.records.rows_of(prefix)) for kind, prefix in _KINDS.items()}
    if not _change(found["weight"]):
        found["weight"] = []
    return {kind: _packed(thinned(rows, points), tasks) for kind, rows in found.items() if rows}


def _in_order(rows: Rows) -> Rows:
    """One row a step, the latest: a run that went on from a checkpoint may have made a step twice."""
    return sorted({step: (step, values) for step, values in rows}.values(), key=lambda row: row[0])


def _change(rows: Rows) -> bool:
    """Whether any task's weight is not the same throughout."""
    return any(values != rows[0][1] for _, values in rows)


def thinned(rows: Rows, points: int) -> Rows:
    """At most `points` rows, evenly chosen, besides the last and the lowest value of each task.

    Args:
        rows: Step and values by task, in order.
        points: 2 or more.
    """
    if len(rows) <= points:
        return rows
    chosen = {place * (len(rows) - 1) // (points - 1) for place in range(points)}
    lowest: dict[str, tuple[float, int]] = {}
    for place, (_, values) in enumerate(rows):
        for task, value in values.items():
            lowest[task] = min(lowest.get(task, (value, place)), (value, place))
    return [rows[place] for place in sorted(chosen | {place for _, place in lowest.values()})]


def _packed(rows: Rows, tasks: Sequence[str]) -> dict[str, Any]:
    there = [task for task in tasks if any(task in values for _, values in rows)]
    return {
        "steps": [step for step, _ in rows],
        "tasks": {task: [_rounded(values.get(task)) for _, values in rows] for task in there},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
