"""The seeded split of a task's samples into training and validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mftrun.errors import ConfigError

TRAIN, VALID = 1, 2


@dataclass(frozen=True)
class ValidationSize:
    """How many samples of a task are held out.

    Args:
        fraction: Share of the samples, in [0, 1); 0 holds out none.
        minimum: At least so many.
        maximum: At most so many.
    """

    fraction: float
    minimum: int
    maximum: int

    def of(self, count: int) -> int:
        """Samples to hold out of ``count``."""
        if self.fraction == 0:
            return 0
        return min(max(int(self.fraction * count + 0.5), self.minimum), self.maximum)


def subset(count: int, task: str, seed: int, max_samples: int | None) -> npt.NDArray[np.bool_]:
    """Which samples of a task are used.

    Args:
        count: Samples of the task.
        task: Its name.
        seed: The seed of the run.
        max_samples: How many to use, chosen at random; None uses all.

    Returns:
        bool[count]. It depends on the task's own name and size and on the seed, not on the other tasks.
    """
    if max_samples is None or max_samples >= count:
        return np.ones(count, dtype=np.bool_)
    used = np.zeros(count, dtype=np.bool_)
    used[_order(count, task, seed)[:max_samples]] = True
    return used


def split(count: int, task: str, seed: int, size: ValidationSize) -> npt.NDArray[np.int8]:
    """What each sample of a task is for.

    A task's split depends on its own name and size and on the seed, not on the other tasks.

    Args:
        count: Samples of the task.
        task: Its name.
        seed: The seed of the run.
        size: How many samples to hold out.

    Returns:
        int8[count] of `TRAIN`, `VALID`.

    Raises:
        ConfigError: No sample would be left for training.
    """
    held_out = size.of(count)
    if held_out >= count:
        raise ConfigError(f"data.tasks.{task}", _too_few(task, count, held_out))
    roles = np.full(count, TRAIN, dtype=np.int8)
    roles[_order(count, task, seed)[:held_out]] = VALID
    return roles


def _order(count: int, task: str, seed: int) -> npt.NDArray[np.int64]:
    name = np.random.SeedSequence(entropy=seed, spawn_key=tuple(task.encode()))
    order: npt.NDArray[np.int64] = np.random.default_rng(name).permutation(count)
    return order


def _too_few(task: str, used: int, held_out: int) -> str:
    samples = f"{used} sample{'' if used == 1 else 's'}"
    return (
        f"{samples}, but the validation split takes {held_out} and training needs at least 1; add samples, "
        f"give data.tasks.{task}.valid_path, or set data.valid_min, data.valid_fraction "
        "(0 turns validation off) or max_samples"
    )
