"""GradNorm: every task pulls on the model alike, and slow learners somewhat harder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mftrun.losses.weightings import settings
from mftrun.losses.weightings.adaptive import Adaptive, AdaptiveWeights, at_least, first_known, ratio
from mftrun.losses.weightings.base import Observation


@dataclass(frozen=True, kw_only=True)
class GradNorm(Adaptive):
    """Weights under which the gradient norms of the tasks meet targets (arXiv 1711.02257, Eq. 1 and 2).

    G_k is the norm of the gradient of w_k L_k in one layer, in the training step before. Its target is
    mean(G) * r_k^alpha, with r_k = (L_k / L_k(0)) / mean(L / L(0)) the inverse training rate. The weights go
    down the gradient of sum_k |G_k - target_k|, targets held constant: by sign(G_k - target_k) * G_k / w_k.

    Three things differ from the paper:

    - Norms count in units of mean(G). Otherwise `lr` would mean something else for each model and layer.
    - No step goes past the weight with which G_k would meet its target (the proximal step of
      |G_k - target_k|). A weight neither goes to and fro about it nor, from a small value, far beyond.
    - Weights stay above 0: none is less than `min_weight` times their mean, but for the division by their sum
      that follows.

    Means run over the tasks that are active and have a loss and a gradient. The others keep their weights.

    Args:
        alpha: Pull towards equal training rates; 0 makes norms equal.
        lr: Step size, for weights of mean 1.
        min_weight: Least weight, where the mean is 1; above 0, or it could not grow again.
        watch: Where losses come from. Gradients are always those of training.

    Raises:
        ConfigError: A value outside its range.
    """

    alpha: float = 1.5
    lr: float = 0.025
    min_weight: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        settings.between("alpha", self.alpha, 0)
        settings.positive("lr", self.lr)
        settings.positive("min_weight", self.min_weight)
        settings.between("min_weight", self.min_weight, 0, 1)

    @property
    def needs_gradient_norms(self) -> bool:
        """True."""
        return True

    def build(self, tasks: Sequence[str], draws: int | None = None) -> GradNormWeights:
        """See `Weighting.build`."""
        return GradNormWeights(self, len(tasks))


class GradNormWeights(AdaptiveWeights):
    """Weights of a run with `GradNorm`; they sum to 1.

    Args:
        config: The settings.
        num_tasks: K.
    """

    def __init__(self, config: GradNorm, num_tasks: int) -> None:
        super().__init__(num_tasks)
        self._config = config
        self._initial = torch.full((num_tasks,), torch.nan, dtype=torch.float64)

    def _weigh(self, observation: Observation, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        losses = at_least(observation.losses)
        self._initial = first_known(self._initial, losses, present)
        measured = observation.gradient_norms
        if measured is None or not (part := present & measured.isfinite()).any():
            return self._weights, self._diagnostics
        norms = torch.where(part, measured, 0.0)
        target = _targets(norms, losses / self._initial, part, self._config.alpha)
        weights = self._moved(_of_mean_one(self._weights, observation.active), norms, target, part)
        shown = {"gradient_norm": norms.masked_fill(~part, torch.nan), "target": target}
        return weights / weights.sum(), shown

    def _moved(self, weights: Tensor, norms: Tensor, target: Tensor, part: Tensor) -> Tensor:
        """Weights after one step: those taking `part` keep the sum they had, the others their weight."""
        longest = self._config.lr * ratio(ratio(norms, weights), norms.sum() / part.sum())
        wanted = weights * ratio(target, norms)
        moved = torch.where(part, weights + torch.clamp(wanted - weights, -longest, longest), 0.0)
        moved = (part.sum() * ratio(moved, moved.sum())).clamp(min=self._config.min_weight)
        return torch.where(part, moved * (weights[part].sum() / moved[part].sum()), weights)

    def _memory(self) -> dict[str, Any]:
        return {"initial": self._initial}

    def _recall(self, memory: Mapping[str, Any]) -> None:
        self._initial = memory["initial"]


def _of_mean_one(weights: Tensor, active: Tensor) -> Tensor:
    """Weights of the active tasks, of which some are above 0, with mean 1; 0 for the others."""
    weights = torch.where(active, weights, 0.0)
    return weights * (active.sum() / weights.sum())


def _targets(norms: Tensor, progress: Tensor, part: Tensor, alpha: float) -> Tensor:
    """Norm that each task's gradient should have: mean(G) * r_k^alpha.

    Args:
        norms: float64 [K], G; 0 where a task takes no part.
        progress: float64 [K], L_k / L_k(0).
        part: bool [K], with some True.
        alpha: Pull towards equal training rates.

    Returns:
        float64 [K]; nan where a task takes no part.
    """
    count = part.sum()
    progress = progress.masked_fill(~part, 0)
    rates = progress / (progress.sum() / count)
    return (norms.sum() / count * rates**alpha).masked_fill(~part, torch.nan)
