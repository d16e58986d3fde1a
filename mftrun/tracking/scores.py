"""What the scores of a run on benchmarks came to, from its records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mftrun.tracking import text

PREFIX = "benchmark/pass@1"


@dataclass(frozen=True)
class ScoreSummary:
    """Shares of a benchmark's problems that were solved in one try.

    Attributes:
        first: The first that was measured.
        last: The last one.
        best: The highest.
        best_step: Step of the first that was as high.
    """

    first: float
    last: float
    best: float
    best_step: int


def score_summaries(records: Iterable[Mapping[str, Any]]) -> dict[str, ScoreSummary]:
    """The scores by benchmark; none where nothing was scored.

    Args:
        records: Records of the metrics file, in order.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for key, value in record.items():
            if key.startswith(f"{PREFIX}/") and value is not None:
                points.setdefault(key.removeprefix(f"{PREFIX}/"), []).append((record["step"], value))
    return {name: _summary(measured) for name, measured in points.items()}


def score_lines(scores: Mapping[str, ScoreSummary]) -> list[str]:
    """A line for each benchmark."""
    width = max(map(len, scores), default=0)
    return [
        f"pass@1 {name:<{width}}  first {text.share(one.first)}  last {text.share(one.last)}  "
        f"best {text.share(one.best)} at step {one.best_step}"
        for name, one in scores.items()
    ]


def score_parts(record: Mapping[str, float]) -> list[str]:
    """What one record says: the mean, then each benchmark; nothing where nothing was scored."""
    each = [
        f"{key.removeprefix(f'{PREFIX}/')} {text.share(value)}"
        for key, value in record.items()
        if key.startswith(f"{PREFIX}/")
    ]
    mean = record.get(PREFIX)
    if not each:
        return []
    return [f"pass@1 {'-' if mean is None else text.share(mean)}", "  ".join(each)]


def _summary(points: Sequence[tuple[int, float]]) -> ScoreSummary:
    step, best = max(points, key=lambda point: point[1])
    return ScoreSummary(points[0][1], points[-1][1], best, step)
