"""Loss-balanced task weighting: a task counts less the further its loss has fallen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mftrun.losses.weightings import settings
from mftrun.losses.weightings.adaptive import Adaptive, AdaptiveWeights, at_least, first_known
from mftrun.losses.weightings.base import Observation


@dataclass(frozen=True)
class Lbtw(Adaptive):
    """Loss-balanced task weighting (LBTW, AAAI 2019, Algorithm 1): w_k = (L_k(t) / L_k(0))^alpha.

    The weights need not sum to 1; the normalization divides by their sum. Before anything was observed they
    are 1 / K each, then 1 for a task that was observed once or not at all.

    Attributes:
        alpha: How much the fall of a loss counts, 0 to 10; 0 gives equal weights.

    Raises:
        ConfigError: A setting is out of its range.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        settings.between("alpha", self.alpha, 0, 10)

    def build(self, tasks: Sequence[str], draws: int | None = None) -> LbtwWeights:
        """See `Weighting.build`."""
        return LbtwWeights(len(tasks), self)


class LbtwWeights(AdaptiveWeights):
    """Weights of a run with `Lbtw`. Logs `loss_ratio`, L_k(t) / L_k(0)."""

    def __init__(self, num_tasks: int, config: Lbtw) -> None:
        super().__init__(num_tasks)
        self._alpha = config.alpha
        self._initial = torch.full((num_tasks,), torch.nan, dtype=torch.float64)
        self._fallen = torch.ones(num_tasks, dtype=torch.float64)

    def _weigh(self, observation: Observation, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        losses = at_least(observation.losses)
        self._initial = first_known(self._initial, losses, present)
        self._fallen = torch.where(present, losses / self._initial, self._fallen)
        known = observation.active & ~self._initial.isnan()
        return self._fallen**self._alpha, {"loss_ratio": self._fallen.masked_fill(~known, torch.nan)}

    def _memory(self) -> dict[str, Any]:
        return {"initial": self._initial, "fallen": self._fallen}

    def _recall(self, memory: Mapping[str, Any]) -> None:
        self._initial, self._fallen = memory["initial"], memory["fallen"]
