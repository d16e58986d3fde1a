"""Focal losses: what the model already predicts well counts less.

With p the probability of a target and l = -log p its nll, the loss of a token is alpha * (1 - p)^gamma * l
(arXiv 1708.02002). The same is done with the means P of p and Q of l over a sample, or over a task, in
equations 2 and 3 of arXiv 2311.02303. A target of weight v counts as v tokens in all of these means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mftrun.errors import ConfigError
from mftrun.losses.by_task import by_task
from mftrun.losses.on_device import OnDevice
from mftrun.losses.token_losses import Targets, TokenValues
from mftrun.nearest import unknown

_KEY = "loss.token_loss"
_FLOOR = 1e-100  # below 1 - p of every nll above 0 in single precision, and far from overflow


@dataclass(frozen=True)
class Focal:
    """alpha_k * (1 - p)^gamma * nll for each token, for the means of each sample, or for those of each task.

    Args:
        level: What p and nll are: those of each `token`, their means over each `sample`, or over each `task`
            in the global batch. The last costs one more forward pass per step.
        gamma: 0 or more; 0 is cross entropy, the larger, the less do easy targets count.
        alpha: Factor by task name, 0 or more; a task that is not named has 1.

    Raises:
        ConfigError: The level is unknown, or a number is negative or not finite.
    """

    level: Literal["token", "sample", "task"] = "token"
    gamma: float = 2.0
    alpha: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.level not in _LEVELS:
            raise ConfigError(f"{_KEY}.level", unknown(str(self.level), _LEVELS, f"no level {self.level!r}"))
        _check_number(self.gamma, f"{_KEY}.gamma")
        for name, value in (self.alpha or {}).items():
            _check_number(value, f"{_KEY}.alpha.{name}")

    def for_tasks(self, tasks: Sequence[str]) -> TokenValues:
        """See `TokenLoss.for_tasks`.

        Raises:
            ConfigError: A factor is given for an unknown task, or all factors are 0.
        """
        alpha = by_task(self.alpha, tasks, 1.0, f"{_KEY}.alpha")
        if not alpha.any():
            raise ConfigError(f"{_KEY}.alpha", "every task has a factor of 0: nothing would be trained")
        return _LEVELS[self.level](float(self.gamma), alpha)


class FocalLevel:
    """What the levels share: gamma, and one alpha for each task.

    Args:
        gamma: 0 or more.
        alpha: float64 [K].
    """

    needs_statistics: ClassVar[bool] = False

    def __init__(self, gamma: float, alpha: Tensor) -> None:
        self._gamma = gamma
        self._cpu_alpha = alpha
        self._moved = OnDevice()

    def statistics(self, targets: Targets, shares: Tensor) -> Tensor:
        """Nothing, float64 [0]."""
        return shares[:0]

    def _alpha(self, device: torch.device) -> Tensor:
        return self._moved(self._cpu_alpha, device)

    def _factors(self, misses: Tensor, task_ids: Tensor) -> Tensor:
        """For each token, alpha * misses^gamma, [T]."""
        return self._alpha(misses.device)[task_ids] * _power(misses, self._gamma)


class FocalTokens(FocalLevel):
    """Each token by itself: alpha * (1 - p_i)^gamma * nll_i."""

    def values(self, targets: Targets, statistics: Tensor | None) -> Tensor:
        """See `TokenValues.values`; float64."""
        nll = targets.nll.double()
        return self._factors(_misses(nll), targets.task_ids) * nll


class FocalSamples(FocalLevel):
    """Every token stands for its sample: alpha * (1 - P_s)^gamma * Q_s (equation 2 of arXiv 2311.02303)."""

    def values(self, targets: Targets, statistics: Tensor | None) -> Tensor:
        """See `TokenValues.values`; float64."""
        nll = targets.nll.double()
        misses, mean = _sample_means(torch.stack([_misses(nll), nll]), targets).unbind()
        return self._factors(misses, targets.task_ids) * mean


class FocalTasks(FocalLevel):
    """Every token stands for its task: F_k = alpha * (1 - P_k)^gamma * Q_k (equation 3 of arXiv 2311.02303).

    P_k and Q_k are the averages over the global batch that the normalization takes: sums of share * p and of
    share * nll over the tokens of the task, divided by the sum C_k of their shares. So the loss is the sum of
    C_k * F_k, and with task_mean they are the plain means over tokens.
    """

    needs_statistics: ClassVar[bool] = True

    def statistics(self, targets: Targets, shares: Tensor) -> Tensor:
        """Sums over the tokens of each task: float64 [3K], of shares, of share * (1 - p), of share * nll."""
        # An nll that rounding took below 0 is 0: the slope in `values` divides by 1 - P.
        nll = targets.nll.detach().double().clamp_min(0)
        rows = shares * torch.stack([torch.ones_like(nll), _misses(nll), nll])
        sums = torch.zeros(3, len(self._cpu_alpha), dtype=torch.float64, device=nll.device)
        return sums.index_add_(1, targets.task_ids, rows).flatten()

    def values(self, targets: Targets, statistics: Tensor | None) -> Tensor:
        """See `TokenValues.values`; float64.

        Each token has the value F_k, a constant here, and the gradient of
        alpha * [(1 - P_k)^gamma * nll_i + gamma * (1 - P_k)^(gamma - 1) * Q_k * (1 - p_i)],
        the tangent, which is linear in what P_k and Q_k are means of: multiplied by shares, the gradients add
        up to that of the loss.
        """
        assert statistics is not None, "P and Q of the whole global batch must be known before a backward"
        totals = statistics.view(3, -1)
        misses, mean = totals[1:] / totals[0].clamp_min(_FLOOR)
        alpha = self._alpha(misses.device)
        factor = alpha * _power(misses, self._gamma)
        slope = alpha * self._gamma * _power(misses, self._gamma - 1) * mean
        factors, slopes, values = torch.stack([factor, slope, factor * mean])[:, targets.task_ids].unbind()
        nll = targets.nll.double()
        tangent = factors * nll + slopes * _misses(nll)
        return tangent - tangent.detach() + values


_LEVELS: Mapping[str, type[FocalTokens] | type[FocalSamples] | type[FocalTasks]] = MappingProxyType(
    {"token": FocalTokens, "sample": FocalSamples, "task": FocalTasks}
)


def _misses(nll: Tensor) -> Tensor:
    """1 - p, accurate where p is close to 1."""
    return -torch.expm1(-nll)


def _power(misses: Tensor, exponent: float) -> Tensor:
    """Power whose value and gradient are finite at 0, where those of exponents below 1 are not."""
    return misses.clamp_min(_FLOOR) ** exponent


def _sample_means(values: Tensor, targets: Targets) -> Tensor:
    """Weighted means over the sample of each token, of [N, T] values: [N, T].

    Samples are told apart by where their id begins among the sorted ones, which is below T whatever the ids
    are, and which is found without reading anything back from the device.
    """
    ids = targets.sample_ids
    place = torch.searchsorted(ids.sort().values, ids)
    sums = torch.zeros_like(values).index_add(1, place, values * targets.target_weights)
    return sums[:, place] / targets.sample_sizes


def _check_number(value: Any, key: str) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
        raise ConfigError(key, f"must be a finite number, 0 or more, not {value!r}")
