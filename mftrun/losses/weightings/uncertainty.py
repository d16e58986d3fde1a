"""Uncertainty weighting: a task counts by the inverse of its noise, which is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mftrun.losses.weightings import settings
from mftrun.losses.weightings.adam import TaskAdam
from mftrun.losses.weightings.adaptive import Adaptive, AdaptiveWeights, at_least
from mftrun.losses.weightings.base import Observation


@dataclass(frozen=True)
class Uncertainty(Adaptive):
    """Homoscedastic uncertainty (arXiv 1705.07115, Equation 7): sum_k L_k / (2 sigma_k^2) + log sigma_k.

    Each log sigma_k starts from 0 and is learned by an Adam of its own, so the optimizer of the model, its
    schedule and its weight decay do not touch it: one step per observation of the task, on what was observed.
    The weights are 1 / (2 sigma_k^2), which tend to 1 / (2 L_k). They need not sum to 1; the normalization
    divides by their sum, so only their ratios act, not the size of the sum.

    Attributes:
        lr: Step size of Adam, above 0 and at most 1: about how much log sigma moves per observation while it
            has far to go.

    Raises:
        ConfigError: A setting is out of its range.
    """

    lr: float = 0.025

    def __post_init__(self) -> None:
        super().__post_init__()
        settings.positive("lr", self.lr, most=1)

    def build(self, tasks: Sequence[str], draws: int | None = None) -> UncertaintyWeights:
        """See `Weighting.build`."""
        return UncertaintyWeights(len(tasks), self)


class UncertaintyWeights(AdaptiveWeights):
    """Weights of a run with `Uncertainty`. Logs `log_sigma`."""

    def __init__(self, num_tasks: int, config: Uncertainty) -> None:
        super().__init__(num_tasks)
        self._log_sigma = TaskAdam(num_tasks, config.lr)

    def _weigh(self, observation: Observation, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        slope = 1 - at_least(observation.losses) * torch.exp(-2 * self._log_sigma.values)
        self._log_sigma.update(slope, present)
        values = self._log_sigma.values
        logged = {"log_sigma": values.masked_fill(~observation.active, torch.nan)}
        return torch.exp(-2 * values) / 2, logged

    def _memory(self) -> dict[str, Any]:
        return {"log_sigma": self._log_sigma.state_dict()}

    def _recall(self, memory: Mapping[str, Any]) -> None:
        self._log_sigma.load_state_dict(memory["log_sigma"])
