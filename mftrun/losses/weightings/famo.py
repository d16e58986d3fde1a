"""FAMO: weights under which the losses of all tasks fall at the same rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mftrun.losses.weightings import settings
from mftrun.losses.weightings.adam import TaskAdam
from mftrun.losses.weightings.adaptive import Adaptive, AdaptiveWeights, at_least, masked_softmax, share_out
from mftrun.losses.weightings.base import Observation


@dataclass(frozen=True)
class Famo(Adaptive):
    """Fast adaptive multitask optimization (FAMO, arXiv 2306.03792, Algorithm 1).

    With z = softmax(xi), the training loss is c sum_k z_k log L_k, c = 1 / sum_k z_k / L_k held constant; its
    gradient is that of weights c z_k / L_k, which sum to 1. After an update of the model,
    delta_k = log L_k(before) - log L_k(after), and Adam moves xi down dz/dxi^T delta: tasks whose loss fell
    least get more. Equation 4 of the MFTCoder paper (arXiv 2311.02303) applies this to validation losses.

    Before and after must be losses of the same samples. With `watch: probe` they are: the probe stays on one
    draw for `repeats` probes, and losses of different draws are never compared. With `watch: train` they are
    not, as each step trains on other samples: delta then holds the difference between two batches as well,
    noise that is about 0 on average and that averages out only over many steps. Only steps in a row are
    compared there: not those before and after the model was put back to an earlier one.

    Attributes:
        lr: Step size of Adam, above 0 and at most 1.
        weight_decay: Pulls xi to 0, as L2 in the gradient; 0 or more.
        repeats: With `watch: probe`, probes in a row on the same samples, 2 or more.

    Raises:
        ConfigError: A setting is out of its range.
    """

    lr: float = 0.025
    weight_decay: float = 0.01
    repeats: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        settings.positive("lr", self.lr, most=1)
        settings.between("weight_decay", self.weight_decay, 0)
        least = 2 if self.watch == "probe" else 1
        settings.whole("repeats", self.repeats, least, "it learns from two probes of the same samples")

    @property
    def draw_repeats(self) -> int:
        """`repeats` of the probe; 1 where training is watched."""
        return self.repeats if self.watch == "probe" else 1

    def build(self, tasks: Sequence[str], draws: int | None = None) -> FamoWeights:
        """See `Weighting.build`."""
        return FamoWeights(len(tasks), self)


class FamoWeights(AdaptiveWeights):
    """Weights of a run with `Famo`. Logs `z`, and `delta` where losses could be compared."""

    def __init__(self, num_tasks: int, config: Famo) -> None:
        super().__init__(num_tasks)
        # Probes of a draw in a row; or steps in a row, of which each has a draw of its own.
        self._next_draw = 1 if config.watch == "train" else 0
        self._xi = TaskAdam(num_tasks, config.lr, config.weight_decay)
        self._newest = torch.full((num_tasks,), torch.nan, dtype=torch.float64)
        self._before = torch.full((num_tasks,), torch.nan, dtype=torch.float64)
        self._draw: int | None = None

    def _weigh(self, observation: Observation, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        losses = torch.where(present, at_least(observation.losses), torch.nan)
        delta = self._fallen(losses, observation.draw)
        self._learn(delta)
        self._before, self._draw = losses, observation.draw
        self._newest = torch.where(present, losses, self._newest)
        z = masked_softmax(self._xi.values, observation.active)
        known = observation.active & ~self._newest.isnan()
        shares = masked_softmax(self._xi.values - self._newest.log(), known)  # c z_k / L_k
        logged = {"z": z.masked_fill(~observation.active, torch.nan), "delta": delta}
        return share_out(shares, known, observation.active), logged

    def _fallen(self, losses: Tensor, draw: int) -> Tensor:
        """By how much the log of each loss fell since the observation before, [K]; nan where unknown."""
        if self._draw is None or draw != self._draw + self._next_draw:
            return torch.full_like(losses, torch.nan)
        return self._before.log() - losses.log()

    def _learn(self, delta: Tensor) -> None:
        """One step of xi of the tasks whose delta is known: the softmax is over these alone."""
        compared = ~delta.isnan()
        if not compared.any():
            return
        z = masked_softmax(self._xi.values, compared)
        fallen = delta.nan_to_num()
        self._xi.update(z * (fallen - (z * fallen).sum()), compared)

    def _memory(self) -> dict[str, Any]:
        own = {"newest": self._newest, "before": self._before, "draw": self._draw}
        return {"xi": self._xi.state_dict(), **own}

    def _recall(self, memory: Mapping[str, Any]) -> None:
        self._xi.load_state_dict(memory["xi"])
        self._newest, self._before, self._draw = memory["newest"], memory["before"], memory["draw"]
