"""Weights from the configuration, which never change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mftrun.errors import ConfigError
from mftrun.losses.by_task import by_task
from mftrun.losses.weightings.base import Observation, Watch

_KEY = "loss.weighting.weights"


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

    @property
    def watch(self) -> Watch | None:
        """None: nothing could change them."""
        return None

    @property
    def draw_repeats(self) -> int:
        """1."""
        return 1

    @property
    def needs_gradient_norms(self) -> bool:
        """False."""
        return False

    def build(self, tasks: Sequence[str], draws: int | None = None) -> StaticWeights:
        """See `Weighting.build`.

        Raises:
            ConfigError: A weight is given for an unknown task, all weights are 0, or their sum overflows.
        """
        values = by_task(self.weights, tasks, 1.0, _KEY)
        if not values.sum().isfinite():
            raise ConfigError(_KEY, "are too large to be added up; only their ratios matter")
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

    @property
    def warmup(self) -> int:
        """0."""
        return 0

    def current(self) -> Tensor:
        """float64 [K], the same at every step."""
        return self._values

    def observe(self, observation: Observation) -> None:
        """Nothing comes of it."""

    def diagnostics(self) -> Mapping[str, Tensor]:
        """Empty: nothing was computed."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the configuration says it all, and may be changed on purpose when a run resumes."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes nothing from a checkpoint."""
