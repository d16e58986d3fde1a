"""Dynamic weight average: a task counts more the less its loss fell lately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mftrun.losses.weightings import settings
from mftrun.losses.weightings.adaptive import Adaptive, AdaptiveWeights, at_least, masked_softmax, share_out
from mftrun.losses.weightings.base import Observation
from mftrun.losses.weightings.history import Recent


@dataclass(frozen=True)
class Dwa(Adaptive):
    """Dynamic weight average (DWA, arXiv 1803.10704, Equation 7): w = softmax((L_k(t-1) / L_k(t-2)) / T).

    L_k(t-1) is the mean of the newest `window` observations of a task, L_k(t-2) that of the `window` before.
    The paper's are means over epochs, and its weights sum to K, here to 1.

    Attributes:
        temperature: T, above 0; the larger, the more alike are the weights.
        window: Observations averaged into each of the two losses, 1 or more.

    Raises:
        ConfigError: A setting is out of its range.
    """

    temperature: float = 2.0
    window: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        settings.positive("temperature", self.temperature)
        settings.whole("window", self.window, 1)

    def build(self, tasks: Sequence[str], draws: int | None = None) -> DwaWeights:
        """See `Weighting.build`."""
        return DwaWeights(len(tasks), self)


class DwaWeights(AdaptiveWeights):
    """Weights of a run with `Dwa`. Logs `loss_ratio`, L_k(t-1) / L_k(t-2)."""

    def __init__(self, num_tasks: int, config: Dwa) -> None:
        super().__init__(num_tasks)
        self._config = config
        self._losses = Recent(2 * config.window, num_tasks)

    def _weigh(self, observation: Observation, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self._losses.add(at_least(observation.losses), present)
        window = self._config.window
        fallen = self._losses.newest(window).mean(0) / self._losses.newest(window, skip=window).mean(0)
        known = observation.active & ~fallen.isnan()
        shares = masked_softmax(fallen / self._config.temperature, known)
        logged = {"loss_ratio": fallen.masked_fill(~known, torch.nan)}
        return share_out(shares, known, observation.active), logged

    def _memory(self) -> dict[str, Any]:
        return {"losses": self._losses.state_dict()}

    def _recall(self, memory: Mapping[str, Any]) -> None:
        self._losses.load_state_dict(memory["losses"])
