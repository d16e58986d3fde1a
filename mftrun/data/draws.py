"""Draws: small stratified batches of validation samples, in which every task has its part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mftrun.data.batch import Samples
from mftrun.data.mixture import Int64Array, generator, permutation
from mftrun.data.rows import PaddingFree, offsets, ranges
from mftrun.errors import ConfigError

# Separates this stream of random numbers from all others: 1 to 3 order samples, 4 seeds shards.
_DRAW_STREAM = 5


class Draws:
    """Cuts each task's validation samples into groups of about equal size, and deals one of each per draw.

    A task's samples that hold targets stand in a random order of their own. A group takes whole samples until
    the next would exceed its budget, at least one; the last two are evened out, as a group of a single short
    sample would say little. Draw n holds group n mod G_k of every task k. It is a function of the samples,
    the seed and n, so a run that resumes needs to know no more than n.

    Args:
        samples: The tokenized validation samples.
        tokens_per_task: Budget of a group, input tokens, 1 or more. A draw of K tasks has at most
            K * max(tokens_per_task, longest sample).
        seed: The run's seed, not negative.

    Raises:
        ConfigError: A task has no validation sample with targets.
    """

    def __init__(self, samples: Samples, tokens_per_task: int, seed: int) -> None:
        assert tokens_per_task > 0, "the schema lets no other budget in"
        refuse_unprobed(samples)
        orders = [_order(members, seed, task) for task, members in enumerate(_members(samples))]
        groups = [_groups(samples.lengths[order], tokens_per_task) for order in orders]
        # Groups of all tasks one after the other, each a stretch of `_samples`.
        self._samples = np.concatenate([np.zeros(0, np.int64), *orders])
        self._group_ptr = offsets(np.concatenate([np.zeros(0, np.int64), *groups]))
        self._num_groups = np.array([len(sizes) for sizes in groups], np.int64)
        self._first_group = offsets(self._num_groups)[:-1]

    @property
    def per_pass(self) -> int:
        """Draws until every task has shown all its samples: the most groups of any task."""
        return int(self._num_groups.max(initial=0))

    def of(self, number: int) -> Int64Array:
        """Return the samples of draw `number` (0-based), int64[...]: each one once, task after task."""
        assert number >= 0
        groups = self._first_group + number % self._num_groups
        starts = self._group_ptr[groups]
        return self._samples[ranges(starts, self._group_ptr[groups + 1] - starts)]


def refuse_unprobed(samples: Samples) -> None:
    """Checks that every task can be probed. It reads no tokens and is cheap.

    Args:
        samples: The tokenized validation samples.

    Raises:
        ConfigError: Names all tasks without a validation sample that holds targets.
    """
    tasks = missing(samples)
    if tasks:
        raise ConfigError(f"data.tasks.{tasks[0]}", _unprobed(tasks))


def missing(samples: Samples) -> list[str]:
    """The tasks without a validation sample that holds targets."""
    probed = np.bincount(samples.task, samples.target_weights > 0, minlength=len(samples.tasks))
    return [samples.tasks[task] for task in np.flatnonzero(probed == 0).tolist()]


def _members(samples: Samples) -> list[Int64Array]:
    """Return for each task its samples that hold targets, int64[n], ascending."""
    held = np.flatnonzero(samples.target_weights > 0)
    task = samples.task[held]
    by_task = held[np.argsort(task, kind="stable")]
    counts = np.bincount(task, minlength=len(samples.tasks))
    return np.split(by_task, np.cumsum(counts)[:-1]) if len(counts) else []


def _order(members: Int64Array, seed: int, task: int) -> Int64Array:
    return members[permutation(len(members), generator(seed, 0, _DRAW_STREAM, part=task))]


def _groups(lengths: Int64Array, budget: int) -> Int64Array:
    """Return int64[G]: how many of the consecutive samples, int64[n] tokens long, each group takes."""
    rows = PaddingFree(budget).plan(lengths, np.arange(len(lengths)), int(lengths.max()))  # next fit
    return _last_two_evened(rows.row_ptr, offsets(lengths))


def _last_two_evened(group_ptr: Int64Array, ends: Int64Array) -> Int64Array:
    """Return the sizes int64[G] of the groups `group_ptr[g]:group_ptr[g + 1]`, the last two made alike.

    The larger of the two never grows, as the border they come with is one of those to choose from.

    Args:
        group_ptr: int64[G+1].
        ends: int64[n+1], the offsets of the samples' tokens.
    """
    if len(group_ptr) > 2:
        start, stop = group_ptr[-3], group_ptr[-1]
        borders = np.arange(start + 1, stop)
        larger = np.maximum(ends[borders] - ends[start], ends[stop] - ends[borders])
        group_ptr = group_ptr.copy()
        group_ptr[-2] = borders[np.argmin(larger)]
    return np.diff(group_ptr)


def _unprobed(tasks: Sequence[str]) -> str:
    return (
        "the probe needs validation samples with targets of every task; without any: "
        f"{', '.join(tasks)}. Raise data.valid_fraction or data.valid_min, give each of them a "
        "data.tasks.NAME.valid_path, or set loss.weighting.watch=train"
    )
