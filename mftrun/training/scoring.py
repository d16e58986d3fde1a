"""Scores on benchmarks of code while a model is trained: when there are some, and what records say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mftrun.launch import StopRequest

PASS = "pass@1"
"""The metric that is the mean over all benchmarks; with ``/NAME`` behind it, that of one."""

_RECORDED = "benchmark/"


class Examiner(Protocol):
    """Sets the model in training the problems of benchmarks."""

    def examine(self, step: int, stop: StopRequest) -> Mapping[str, float] | None:
        """The share of each benchmark's problems that the model solves in one try; every rank must call it.

        The model is as it was afterwards, and so are the generators.

        Args:
            step: Optimizer steps done.
            stop: Looked at now and then.

        Returns:
            By the benchmark's name, the same on all ranks; without those that could not be judged. None when
            a signal cut it short on some rank.
        """


@dataclass(frozen=True)
class Scoring:
    """Scores of a model in training.

    Args:
        examiner: Finds them.
        names: The benchmarks.
        every: Steps between two; None scores at the end alone.
    """

    examiner: Examiner
    names: Sequence[str]
    every: int | None

    def is_due(self, step: int, total: int) -> bool:
        """Whether a step asks for scores: the last one, and where there are steps between two, the first.

        Args:
            step: Optimizer steps done.
            total: Those of the whole run.
        """
        return step == total or (self.every is not None and step % self.every == 0)

    def scores(self, step: int, stop: StopRequest) -> dict[str, float] | None:
        """The scores by metric, see `metrics_of`; None when a signal cut it short. Every rank must call it.

        A benchmark that could not be judged is absent, and the mean then is, too.

        Args:
            step: Optimizer steps done.
            stop: Looked at now and then.
        """
        found = self.examiner.examine(step, stop)
        if found is None:
            return None
        scores = {f"{PASS}/{name}": found[name] for name in self.names if name in found}
        if len(scores) < len(self.names):
            return scores
        return {PASS: sum(scores.values()) / len(scores), **scores}


def metrics_of(names: Sequence[str]) -> list[str]:
    """What may be watched of some benchmarks: their mean, and each of them.

    Args:
        names: The benchmarks.
    """
    return [PASS, *(f"{PASS}/{name}" for name in names)] if names else []


def scores_record(scores: Mapping[str, float]) -> dict[str, float]:
    """The record of one scoring: ``benchmark/pass@1/NAME``, and their mean as ``benchmark/pass@1``."""
    return {f"{_RECORDED}{metric}": value for metric, value in scores.items()}


def scores_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The scores in a record of metrics, by metric."""
    return {
        key.removeprefix(_RECORDED): value
        for key, value in record.items()
        if key.startswith(f"{_RECORDED}{PASS}")
    }
