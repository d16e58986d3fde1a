"""Samplers that give tasks other shares of an epoch than their sizes.

Each task has an endless sequence of its samples, one random permutation after the other. An epoch takes the
next so many of it, going on where the epoch before it ended. So a large task is seen whole before any of it
comes again, and the samples of a small one repeat equally often. All of it is a function of seed and epoch:
a checkpoint need not hold any state beyond them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mftrun.data.mixture import ORDER_STREAM, Int64Array, generator, permutation
from mftrun.errors import ConfigError
from mftrun.nearest import unknown

_TASK_STREAM = 3
_BLOCK = 4096  # samples drawn at a time, at least: small tasks would else need very many generators

_LEAST = np.finfo(np.float64).tiny

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Temperature:
    """Task k has the share n_k^(1/T) / sum_j n_j^(1/T) of an epoch, n_k being its number of samples.

    Attributes:
        temperature: T. 1 is in proportion to size; the larger, the more alike are the shares.
        samples_per_epoch: samples of all tasks together; None takes as many as there are.

    Raises:
        ConfigError: A value is not positive.
    """

    temperature: float = 2.0
    samples_per_epoch: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError("sampler.temperature", f"must be finite and above 0, not {self.temperature}")
        _check_total(self.samples_per_epoch)

    def order(self, task: npt.NDArray[Any], seed: int, epoch: int) -> Int64Array:
        """See `Sampler.order`. The samples come in random order.

        Raises:
            ConfigError: `samples_per_epoch` is below the number of tasks.
        """
        sizes = np.bincount(task)
        relative = sizes / max(1, sizes.max(initial=0))  # at most 1: no power of it overflows
        # One that vanishes may not leave its task out.
        shares = np.where(sizes > 0, np.maximum(relative ** (1 / self.temperature), _LEAST), 0.0)
        return _by_shares(task, shares, self.samples_per_epoch, seed, epoch)


@dataclass(frozen=True)
class Weights:
    """Every task has a share of an epoch in proportion to its weight, whatever its size.

    Attributes:
        tasks: names, in the order of the task numbers.
        weights: by task name; a task that is not named has 1, and one with 0 is left out. Only ratios matter.
        samples_per_epoch: samples of all tasks together; None takes as many as there are.

    Raises:
        ConfigError: A task is unknown, a weight is no number of 0 or more, or all are 0.
    """

    tasks: Sequence[str]
    weights: Mapping[str, float] = field(default_factory=dict)
    samples_per_epoch: int | None = None

    def __post_init__(self) -> None:
        _check_named(self.weights, self.tasks, "sampler.weights")
        _check_total(self.samples_per_epoch)

    def order(self, task: npt.NDArray[Any], seed: int, epoch: int) -> Int64Array:
        """See `Sampler.order`. The samples come in random order.

        Raises:
            ConfigError: `samples_per_epoch` is below the number of tasks with a weight, or only tasks without
                samples have one.
        """
        sizes = np.bincount(task, minlength=len(self.tasks))
        shares = np.where(sizes > 0, _values(self.weights, self.tasks), 0.0)
        if len(task) and not shares.any():
            raise ConfigError("sampler.weights", "only tasks without training samples have a weight above 0")
        return _by_shares(task, shares, self.samples_per_epoch, seed, epoch)


@dataclass(frozen=True)
class Epochs:
    """Every sample of a task so many times an epoch, fractions allowed.

    Attributes:
        tasks: names, in the order of the task numbers.
        repeats: times by task name; a task that is not named has 1, and one with 0 is left out.

    Raises:
        ConfigError: A task is unknown, a number is not 0 or more, or all are 0.
    """

    tasks: Sequence[str]
    repeats: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_named(self.repeats, self.tasks, "sampler.repeats")

    def order(self, task: npt.NDArray[Any], seed: int, epoch: int) -> Int64Array:
        """See `Sampler.order`. The samples come in random order.

        Raises:
            ConfigError: No task has as much as one sample an epoch, so that epochs could be empty.
        """
        sizes = np.bincount(task, minlength=len(self.tasks))
        each = _values(self.repeats, self.tasks) * sizes
        if len(task) and each.max() < 1:
            raise ConfigError("sampler.repeats", "every task has less than one sample an epoch")
        _refuse_endless(each.sum(), "sampler.repeats")
        start, stop = _ceil(epoch * each), _ceil((epoch + 1) * each)
        taken = [_take(*one, seed) for one in _turns(task, start, stop - start)]
        return _shuffled(taken, seed, epoch)


_UNTIL: Mapping[str, Callable[[Int64Array], np.int64]] = MappingProxyType(
    {"longest": np.max, "shortest": np.min}
)


@dataclass(frozen=True)
class RoundRobin:
    """Tasks take turns, one sample each, until the longest or the shortest has been seen whole.

    The turns are those of the sampler's order. Rows that are `packing` or `padding` reorder samples; those
    that are `concat` or `padding_free` keep the turns.

    Attributes:
        until: which task's end ends the epoch. With `longest` the others begin again.
    """

    until: Literal["longest", "shortest"] = "longest"

    def __post_init__(self) -> None:
        if self.until not in _UNTIL:
            raise ConfigError("sampler.until", f"must be one of {', '.join(_UNTIL)}, not {self.until!r}")

    def order(self, task: npt.NDArray[Any], seed: int, epoch: int) -> Int64Array:
        """See `Sampler.order`."""
        sizes = np.bincount(task)
        if not len(sizes):
            return np.zeros(0, np.int64)
        counts = np.where(sizes > 0, _UNTIL[self.until](sizes[sizes > 0]), 0)
        taken = [_take(*one, seed) for one in _turns(task, epoch * counts, counts)]
        return np.stack(taken, axis=1).ravel()


_MOST = 100_000_000


def quotas(shares: Shares, total: int) -> Int64Array:
    """Divide `total` samples among tasks in proportion to their shares, by largest remainder.

    A task with a share gets at least one, at the cost of the task that has most.

    Args:
        shares: float64[K], 0 or more, not all 0.
        total: at least the number of shares above 0.

    Returns:
        int64[K], which add up to `total`.
    """
    exact = total * (shares / shares.sum())
    counts: Int64Array = np.floor(exact).astype(np.int64)
    most_remaining = np.argsort(counts - exact, kind="stable")
    counts[most_remaining[: total - counts.sum()]] += 1
    for starved in np.flatnonzero((counts == 0) & (shares > 0)):
        counts[np.argmax(counts)] -= 1
        counts[starved] = 1
    return counts


def _by_shares(
    task: npt.NDArray[Any], shares: Shares, samples_per_epoch: int | None, seed: int, epoch: int
) -> Int64Array:
    if not len(task):
        return np.zeros(0, np.int64)
    total, needed = samples_per_epoch or len(task), np.count_nonzero(shares)
    if total < needed:
        message = f"must be {needed} or more, one sample for each task, not {total}"
        raise ConfigError("sampler.samples_per_epoch", message)
    _refuse_endless(total, "sampler.samples_per_epoch")
    counts = quotas(shares, total)
    return _shuffled([_take(*one, seed) for one in _turns(task, epoch * counts, counts)], seed, epoch)


def _refuse_endless(samples: float, key: str) -> None:
    """An epoch is laid out in memory."""
    if samples > _MOST:
        message = f"an epoch would have {samples:,.0f} samples; at most {_MOST:,} can be: train more epochs"
        raise ConfigError(key, message)


def _turns(
    task: npt.NDArray[Any], starts: Int64Array, counts: Int64Array
) -> Iterable[tuple[int, Int64Array, int, int]]:
    """Yield number, samples, start and count of every task of which something is to be taken."""
    for number in np.flatnonzero(counts).tolist():
        yield number, np.flatnonzero(task == number), int(starts[number]), int(counts[number])


def _take(number: int, members: Int64Array, start: int, count: int, seed: int) -> Int64Array:
    """Return `count` samples of one task's endless sequence, from its place `start` on."""
    passes = -(-_BLOCK // len(members))
    block = passes * len(members)
    first, last = start // block, (start + count - 1) // block
    drawn = [_block(len(members), passes, (seed, at, _TASK_STREAM, number)) for at in range(first, last + 1)]
    at = start - first * block
    taken: Int64Array = members[np.concatenate(drawn)[at : at + count]]
    return taken


def _block(size: int, passes: int, purpose: tuple[int, int, int, int]) -> Int64Array:
    """Return `passes` permutations of `size` numbers, one after the other."""
    raw = generator(*purpose).bit_generator.random_raw(passes * size)
    permutations: Int64Array = np.argsort(raw.reshape(passes, size), axis=1, kind="stable")
    return permutations.astype(np.int64, copy=False).ravel()


def _shuffled(taken: Sequence[Int64Array], seed: int, epoch: int) -> Int64Array:
    samples = np.concatenate([np.zeros(0, np.int64), *taken])
    return samples[permutation(len(samples), generator(seed, epoch, ORDER_STREAM))]


def _ceil(values: Shares) -> Int64Array:
    # 3 * 0.1 * 10 is a little more than 3 and must not be a fourth sample. Rounding up lets a task with any
    # share at all begin in the first epoch.
    return np.ceil(values * (1 - 1e-12)).astype(np.int64)


def _values(named: Mapping[str, float], tasks: Sequence[str]) -> Shares:
    return np.array([named.get(task, 1.0) for task in tasks], np.float64)


def _check_named(named: Mapping[str, float], tasks: Sequence[str], key: str) -> None:
    for name, value in named.items():
        if name not in tasks:
            raise ConfigError(f"{key}.{name}", unknown(name, tasks, "no task has this name", prefix=key))
        if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
            raise ConfigError(f"{key}.{name}", f"must be a finite number, 0 or more, not {value!r}")
    if tasks and not _values(named, tasks).any():
        raise ConfigError(key, f"every task ({', '.join(tasks)}) has 0: nothing would be trained")


def _check_total(samples_per_epoch: int | None) -> None:
    if samples_per_epoch is not None and samples_per_epoch < 1:
        raise ConfigError("sampler.samples_per_epoch", f"must be 1 or more, or null, not {samples_per_epoch}")
