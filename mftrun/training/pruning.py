"""Which job of a sweep is not worth going on with, from the validation losses of all of them at one step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from mftrun.tracking.jsonl import METRICS_NAME
from mftrun.training.stopping import MEAN, WORST, losses_of, watched_loss

ANY = "any"
PRUNED = "pruned"
"""Key of the record by which a run says that it ends for being behind the others of its sweep."""

Curve = Mapping[int, Mapping[str, float]]
"""Step → task → validation loss; infinite where it was not finite."""

_EVALUATED = b'"valid/loss'


@dataclass(frozen=True)
class MedianRule:
    """Ends a run whose lowest loss so far is above the median of what others had at the same step.

    The median stopping rule as in Optuna's MedianPruner (Golovin et al., 2017, Google Vizier, section 3.2.2).

    Args:
        siblings: Runs that must have been evaluated at the step; with fewer nothing is said.
        warmup: Steps before which nothing is said; of the untrained model it never is.
        metric: ``mean`` over tasks, the ``worst`` task, ``any`` task (one that is behind is enough), or the
            name of one task.
    """

    siblings: int
    warmup: int = 0
    metric: str = MEAN

    def verdict(self, own: Curve, others: Sequence[Curve], step: int) -> str | None:
        """Why a run is to end at a step, in words; None where it is to go on.

        Args:
            own: Its evaluations so far.
            others: Those of the others.
            step: That of its newest evaluation.
        """
        there = [self._watched(curve[step]) for curve in others if step in curve]
        if step == 0 or step < self.warmup or len(there) < self.siblings:
            return None
        earlier = [self._watched(losses) for at, losses in own.items() if at <= step]
        for name in self._watched(own[step]):
            best = min(values[name] for values in earlier if name in values)
            theirs = [values[name] for values in there if name in values]
            if len(theirs) >= self.siblings and best > median(theirs):
                others_have = f"{median(theirs):.4f} is the median of {len(theirs)} others"
                return f"{name} {best:.4f} by step {step}, {others_have}"
        return None

    def _watched(self, losses: Mapping[str, float]) -> dict[str, float]:
        if self.metric == ANY:
            return {f"loss of {task}": loss for task, loss in losses.items()}
        value = watched_loss(self.metric, losses)
        name = f"{self.metric} loss" if self.metric in (MEAN, WORST) else f"loss of {self.metric}"
        return {} if value is None else {name: value}


@dataclass(frozen=True)
class Pruner:
    """The rule, applied to a run among the others of its sweep.

    Args:
        rule: What says which run is to end.
        run_dir: The run's folder; those of the others lie beside it.
    """

    rule: MedianRule
    run_dir: Path

    def verdict(self, step: int, losses: Mapping[str, float]) -> str | None:
        """Why this run is to end at this step; None where it is to go on.

        Args:
            step: That of the evaluation.
            losses: Its losses, by task.
        """
        if step < self.rule.warmup:
            return None
        own = {**_curve(self.run_dir / METRICS_NAME), step: _finite(losses)}
        files = sorted(self.run_dir.parent.glob(f"*/{METRICS_NAME}"))
        others = [_curve(path) for path in files if path.parent != self.run_dir]
        return self.rule.verdict(own, others, step)


def _curve(path: Path) -> dict[int, dict[str, float]]:
    """The evaluations in a metrics file, which another process may be writing; none if there is no file."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    return dict(_evaluations(line for line in lines if _EVALUATED in line))


def _evaluations(lines: Iterator[bytes]) -> Iterator[tuple[int, dict[str, float]]]:
    for line in lines:
        try:
            record = json.loads(line)
            yield int(record["step"]), _finite(losses_of(record))
        except (ValueError, TypeError, KeyError):  # torn, not yet whole, or of another program
            continue


def _finite(losses: Mapping[str, float | None]) -> dict[str, float]:
    return {
        task: loss if loss is not None and math.isfinite(loss) else math.inf for task, loss in losses.items()
    }
