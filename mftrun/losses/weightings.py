"""Task weightings: how much each task counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mftrun.errors import ConfigError
from mftrun.nearest import unknown

_KEY = "loss.weighting.weights"


class TaskWeights(Protocol):
    """The weights of a run's tasks as they are now."""

    def current(self) -> Tensor:
        """float64 [K] on the CPU, 0 or more. A new tensor object whenever a weight has changed."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to continue."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state_dict`."""
        ...


@runtime_checkable
class Weighting(Protocol):
    """Configuration of a weighting; `build` makes it run.

    Attributes:
        weighs: Whether any task can get another weight than the others.
    """

    @property
    def weighs(self) -> bool:
        """Whether any task can get another weight than the others."""
        ...

    def build(self, tasks: Sequence[str]) -> TaskWeights:
        """The weights of these tasks, in their order.

        Args:
            tasks: Names of the run's tasks.

        Raises:
            ConfigError: A setting does not fit these tasks.
        """
        ...


@dataclass(frozen=True)
class Static:
    """Weights that never change.

    Only their ratios matter, as they are divided by the sum over the tasks in the global batch.

    Args:
        weights: Weight by task name; a task that is not named gets 1.

    Raises:
        ConfigError: A weight is negative or not a finite number.
    """

    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name, weight in (self.weights or {}).items():
            if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0):
                raise ConfigError(f"{_KEY}.{name}", f"must be a finite number, 0 or more, not {weight!r}")

    @property
    def weighs(self) -> bool:
        """Whether any weight differs from 1, which every task has that is not named."""
        return any(weight != 1 for weight in (self.weights or {}).values())

    def build(self, tasks: Sequence[str]) -> StaticWeights:
        """See `Weighting.build`.

        Raises:
            ConfigError: A weight is given for an unknown task, or all weights are 0.
        """
        given = self.weights or {}
        for name in given:
            _refuse_unknown(name, tasks)
        values = torch.tensor([float(given.get(task, 1.0)) for task in tasks], dtype=torch.float64)
        if not values.any():
            raise ConfigError(_KEY, f"every task ({', '.join(tasks)}) has weight 0: nothing would be trained")
        return StaticWeights(values)


class StaticWeights:
    """Weights of a run with `Static`.

    Args:
        values: float64 [K].
    """

    def __init__(self, values: Tensor) -> None:
        self._values = values

    def current(self) -> Tensor:
        """float64 [K], the same at every step."""
        return self._values

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the configuration says it all, and may be changed on purpose when a run resumes."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes nothing from a checkpoint."""


def _refuse_unknown(name: str, tasks: Sequence[str]) -> None:
    if name not in tasks:
        raise ConfigError(f"{_KEY}.{name}", unknown(name, tasks, "no task has this name"))
