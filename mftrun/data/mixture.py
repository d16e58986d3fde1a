"""Mixture of tasks: in which order, and how often, an epoch visits the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]

# Separates this stream of random numbers from every other one drawn from the same (seed, epoch).
ORDER_STREAM = 1


@runtime_checkable
class Sampler(Protocol):
    """Chooses the samples of an epoch and their order; everything after it only groups them."""

    def order(self, task: npt.NDArray[Any], seed: int, epoch: int) -> Int64Array:
        """Return sample indices in the order of visit.

        Args:
            task: int[S], the task of every sample.
            seed: the run's seed, not negative.
            epoch: 0-based.

        Returns:
            int64[...], a function of the arguments alone, so that a resumed run recomputes it.
        """
        ...


@dataclass(frozen=True)
class Proportional:
    """Every sample exactly once an epoch, so tasks appear in proportion to their size."""

    def order(self, task: npt.NDArray[Any], seed: int, epoch: int) -> Int64Array:
        """Return a permutation int64[S] of all samples, a new one each epoch."""
        return permutation(len(task), generator(seed, epoch, ORDER_STREAM))


def generator(seed: int, epoch: int, stream: int, part: int = 0) -> np.random.Generator:
    """Return the random generator of one purpose (`stream`) in one epoch, and of one of its parts."""
    # NumPy fills up the entropy with zeros: part 0 is the stream itself.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, stream, part])))


def permutation(size: int, rng: np.random.Generator) -> Int64Array:
    """Return a random permutation int64[size] that is the same under every NumPy release.

    NumPy freezes the raw bits of a bit generator but not what `Generator.permutation` makes of them, and
    a run resumed after an upgrade must not visit samples twice.
    """
    return np.argsort(rng.bit_generator.random_raw(size), kind="stable").astype(np.int64, copy=False)
