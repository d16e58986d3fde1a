"""Runs that differ in their seed only, as one: mean and standard deviation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from mftrun.compare.result import RunResult
from mftrun.compare.settings import SEED, Settings
from mftrun.runs.reading import State


@dataclass(frozen=True)
class Estimate:
    """Mean and sample standard deviation of `n` values; of one value there is no deviation."""

    mean: float
    deviation: float | None
    n: int

    @staticmethod
    def of(values: Iterable[float | None]) -> Estimate | None:
        """That of the values that are there; None without any."""
        there = [value for value in values if value is not None]
        if not there:
            return None
        return Estimate(fmean(there), stdev(there) if len(there) > 1 else None, len(there))


@dataclass(frozen=True)
class SeedGroup:
    """Finished runs of equal settings but for the seed.

    Attributes:
        settings: What they share, and others do not.
        seeds: Their seeds.
        tasks: Task to its lowest validation losses.
        mean: Over the tasks, of their best evaluations.
        worst: The highest loss of a task there.
        spread: The highest minus the lowest there.
    """

    settings: Settings
    seeds: tuple[str, ...]
    tasks: Mapping[str, Estimate]
    mean: Estimate | None
    worst: Estimate | None
    spread: Estimate | None

    @property
    def label(self) -> str:
        """The settings in one line."""
        return ", ".join(f"{key}={value}" for key, value in self.settings.items()) or "all"


def seed_groups(results: Sequence[RunResult], tasks: Sequence[str]) -> list[SeedGroup]:
    """Finished runs by their settings without the seed, in the order of the first of each.

    A run without a seed is of no group: its config cannot be read, or is of another version.

    Returns:
        Nothing where no two runs differ in their seed only: such a table would repeat the runs.
    """
    groups: dict[tuple[tuple[str, str], ...], list[RunResult]] = {}
    for result in results:
        # One that was pruned did not have the others' steps.
        if result.state is State.FINISHED and SEED in result.settings:
            groups.setdefault(_without_seed(result.settings), []).append(result)
    # Runs with one seed and one setting are repetitions, and would pretend to more seeds than there are.
    kept = {key: list({one.settings[SEED]: one for one in runs}.values()) for key, runs in groups.items()}
    if all(len(runs) < 2 for runs in kept.values()):
        return []
    return [_group(dict(key), runs, tasks) for key, runs in kept.items()]


def _without_seed(settings: Settings) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in settings.items() if key != SEED)


def _group(settings: Settings, runs: Sequence[RunResult], tasks: Sequence[str]) -> SeedGroup:
    losses = {task: Estimate.of(run.loss(task) for run in runs) for task in tasks}
    best = [run.best for run in runs if run.best is not None]
    return SeedGroup(
        settings=settings,
        seeds=tuple(run.settings[SEED] for run in runs),
        tasks={task: found for task, found in losses.items() if found is not None},
        mean=Estimate.of(one.mean for one in best),
        worst=Estimate.of(one.worst for one in best),
        spread=Estimate.of(one.spread for one in best),
    )
