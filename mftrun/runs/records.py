"""The metrics of a run as curves: which values each had at which step, and how fast it went."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mftrun.tracking.jsonl import read, read_end

VALID = "valid/loss"
TRAIN = "train/loss"
WEIGHT = "weight"

_HIGHEST = 1e150
_PACE_OVER = 20  # records: the pace of now, not of a slow start


class Records:
    """Records of a metrics file, in order.

    Args:
        rows: Mappings with `step`, `time` and metrics.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self._by_task: dict[str, list[tuple[int, dict[str, float]]]] = {}

    @classmethod
    def all_of(cls, path: Path) -> Records:
        """Every record of a file; none where it is missing."""
        try:
            return cls(read(path))
        except OSError:
            return cls([])

    @classmethod
    def end_of(cls, path: Path) -> Records:
        """The newest records of a file, back to a validation; the whole of a short file."""
        try:
            found = cls(read_end(path))
        except OSError:
            return cls([])
        return found if found.of(VALID) else cls.all_of(path)

    @property
    def step(self) -> int:
        """The newest step; 0 before the first."""
        return max((row["step"] for row in self.rows), default=0)

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks that have a loss, in the order of their first."""
        prefixes = (f"{VALID}/", f"{TRAIN}/")
        names = (
            key.removeprefix(prefix)
            for row in self.rows
            for key, value in row.items()
            for prefix in prefixes
            if key.startswith(prefix) and number(value) is not None
        )
        return list(dict.fromkeys(names))

    @property
    def time(self) -> datetime.datetime | None:
        """When the newest record was written."""
        return next((time for row in reversed(self.rows) if (time := _time(row))), None)

    @property
    def seconds(self) -> float | None:
        """From the first record to the newest, pauses included."""
        times = [time for row in self.rows if (time := _time(row))]
        return (times[-1] - times[0]).total_seconds() if len(times) > 1 else None

    @property
    def pace(self) -> float | None:
        """Seconds a step, over the newest records; None before two steps."""
        timed = [(row["step"], time) for row in self.rows[-_PACE_OVER:] if (time := _time(row))]
        if not timed or timed[-1][0] <= timed[0][0]:
            return None
        (first, since), (last, until) = timed[0], timed[-1]
        seconds: float = (until - since).total_seconds() / (last - first)
        return max(0.0, seconds)

    @property
    def epoch(self) -> float | None:
        """Passes over the data at the newest step."""
        return self.newest("epoch")

    def newest(self, key: str) -> float | None:
        """The newest value of a metric, if it has any."""
        return next(
            (value for row in reversed(self.rows) if (value := number(row.get(key))) is not None), None
        )

    def of(self, key: str) -> list[tuple[int, float]]:
        """Steps and values of one metric, where it was measured and finite."""
        values = ((row["step"], number(row.get(key))) for row in self.rows)
        return [(step, value) for step, value in values if value is not None]

    def rows_of(self, prefix: str) -> list[tuple[int, dict[str, float]]]:
        """Steps and values by task of the records that have a metric `prefix/TASK`."""
        if prefix not in self._by_task:
            found = ((row["step"], _by_task(row, f"{prefix}/")) for row in self.rows)
            self._by_task[prefix] = [(step, values) for step, values in found if values]
        return self._by_task[prefix]


def number(value: Any) -> float | None:
    """A number of which sums are finite, too, or None for anything else that a file may hold."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _HIGHEST
    return float(value) if good else None


def _by_task(row: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {
        key.removeprefix(prefix): found
        for key, value in row.items()
        if key.startswith(prefix) and (found := number(value)) is not None
    }


def _time(row: Mapping[str, Any]) -> datetime.datetime | None:
    try:
        time = datetime.datetime.fromisoformat(str(row.get("time")))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
