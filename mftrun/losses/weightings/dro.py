"""Group DRO: the tasks whose losses stay highest above their reference get more and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mftrun.losses.by_task import by_task
from mftrun.losses.weightings import settings
from mftrun.losses.weightings.adaptive import Adaptive, AdaptiveWeights, masked_softmax
from mftrun.losses.weightings.base import Observation, uniform


@dataclass(frozen=True)
class Dro(Adaptive):
    """Group distributionally robust optimization (arXiv 1911.08731, Algorithm 1).

    From 1 / K each, w_k <- w_k exp(eta (L_k - ref_k)), divided by the sum. A task whose loss is not known
    keeps its weight, and the others share what they had together. With references that are the losses of a
    model trained before, it is the rule of DoReMi (arXiv 2305.10429), without its clipping and smoothing.

    Attributes:
        eta: Step size, above 0.
        references: Loss to be compared with by task name, in nats; a task that is not named has 0.

    Raises:
        ConfigError: A setting is out of its range.
    """

    eta: float = 0.01
    references: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        settings.positive("eta", self.eta)
        for name, reference in (self.references or {}).items():
            settings.finite(f"references.{name}", reference)

    def build(self, tasks: Sequence[str], draws: int | None = None) -> DroWeights:
        """See `Weighting.build`.

        Raises:
            ConfigError: A reference is given for an unknown task.
        """
        return DroWeights(by_task(self.references, tasks, 0.0, f"{settings.KEY}.references"), self.eta)


class DroWeights(AdaptiveWeights):
    """Weights of a run with `Dro`. Logs `excess`, by how much each loss lies above its reference.

    Args:
        references: float64 [K].
        eta: Step size.
    """

    def __init__(self, references: Tensor, eta: float) -> None:
        super().__init__(len(references))
        self._references, self._eta = references, eta
        self._log_weights = uniform(len(references)).log()

    def _weigh(self, observation: Observation, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        excess = torch.where(present, observation.losses - self._references, torch.nan)
        moved = self._log_weights + self._eta * excess
        shared = moved - _log_sum(moved, present) + _log_sum(self._log_weights, present)
        self._log_weights = torch.where(present, shared, self._log_weights)
        return masked_softmax(self._log_weights, observation.active), {"excess": excess}

    def _memory(self) -> dict[str, Any]:
        return {"log_weights": self._log_weights}

    def _recall(self, memory: Mapping[str, Any]) -> None:
        self._log_weights = memory["log_weights"]


def _log_sum(log_weights: Tensor, mask: Tensor) -> Tensor:
    """Logarithm of the sum of the weights, [], of the tasks of a mask, bool [K]; others may be nan."""
    return log_weights.masked_fill(~mask, -torch.inf).logsumexp(0)
