"""Settings that are given by task name, as one number for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mftrun.errors import ConfigError
from mftrun.nearest import unknown


def by_task(given: Mapping[str, float] | None, tasks: Sequence[str], default: float, key: str) -> Tensor:
    """The value of each task, float64 [K].

    Args:
        given: Value by task name.
        tasks: Names, in the order of the task ids.
        default: Of a task that is not named.
        key: Where the values were given, for messages.

    Raises:
        ConfigError: A value is given for an unknown task; names the nearest one.
    """
    given = given or {}
    for name in given:
        if name not in tasks:
            raise ConfigError(f"{key}.{name}", unknown(name, tasks, "no task has this name"))
    return torch.tensor([float(given.get(task, default)) for task in tasks], dtype=torch.float64)
