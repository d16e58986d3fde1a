"""The seeded split of a task's samples into training and validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mftrun.errors import ConfigError

UNUSED, TRAIN, VALID = 0, 1, 2


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


def split(
    count: int, task: str, seed: int, size: ValidationSize, max_samples: int | None = None
) -> npt.NDArray[np.int8]:
    """What each sample of a task is for.

    A task's split depends on its own name and size and on the seed, not on the other tasks.

    Args:
        count: Samples of the task.
        task: Its name.
        seed: The seed of the run.
        size: How many samples to hold out.
        max_samples: Use a random subset of this size; None uses all.

    Returns:
        int8[count] of `UNUSED`, `TRAIN`, `VALID`.

    Raises:
        ConfigError: No sample would be left for training.
    """
    used = count if max_samples is None else min(count, max_samples)
    held_out = size.of(used)
    if held_out >= used:
        raise ConfigError(f"data.tasks.{task}", _too_few(task, used, held_out))
    name = np.random.SeedSequence(entropy=seed, spawn_key=tuple(task.encode()))
    order = np.random.default_rng(name).permutation(count)
    roles = np.full(count, UNUSED, dtype=np.int8)
    roles[order[:held_out]] = VALID
    roles[order[held_out:used]] = TRAIN
    return roles


def _too_few(task: str, used: int, held_out: int) -> str:
    samples = f"{used} sample{'' if used == 1 else 's'}"
    return (
        f"{samples}, but the validation split takes {held_out} and training needs at least 1; add samples, "
        f"give data.tasks.{task}.valid_path, or set data.valid_min, data.valid_fraction "
        "(0 turns validation off) or max_samples"
    )
