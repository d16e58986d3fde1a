"""What weightings share that learn from losses: their configuration, their life, and sums over some tasks."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from mftrun.errors import ConfigError
from mftrun.losses.weightings import settings
from mftrun.losses.weightings.base import Observation, TaskWeights, Watch, uniform

LEAST_LOSS = 1e-8
"""Nats. A smaller loss, 0 included, counts as this one in ratios and logarithms, which stay finite by it."""

_LEAST_WARMUP = 10


@dataclass(frozen=True, kw_only=True)
class Adaptive(ABC):
    """Configuration of a weighting that observes losses.

    Attributes:
        watch: Which losses: of the probe, or of training, measured on the global batch of the step before.

    Raises:
        ConfigError: `watch` is neither.
    """

    watch: Watch = "probe"

    def __post_init__(self) -> None:
        settings.one_of("watch", self.watch, get_args(Watch))

    @property
    def weighs(self) -> bool:
        """True."""
        return True

    @property
    def draw_repeats(self) -> int:
        """1, where the weighting compares no two losses of the same samples."""
        return 1

    @property
    def needs_gradient_norms(self) -> bool:
        """False, where losses are all it needs."""
        return False

    @abstractmethod
    def build(self, tasks: Sequence[str], draws: int | None = None) -> TaskWeights:
        """See `Weighting.build`."""


class AdaptiveWeights(ABC):
    """Weights that follow from the observations so far; 1 / K each before the first.

    A subclass says what one observation does, and what it must remember for the next. The rest is here:
    frozen tasks weigh 0, a loss that is not finite counts as absent, and a state is a snapshot that later
    observations leave alone.

    Args:
        num_tasks: K.
        warmup: Observations before any weight can change.
    """

    def __init__(self, num_tasks: int, warmup: int = 1) -> None:
        self.warmup = warmup
        self._weights = uniform(num_tasks)
        self._diagnostics: dict[str, Tensor] = {}

    def current(self) -> Tensor:
        """See `TaskWeights.current`."""
        return self._weights

    def observe(self, observation: Observation) -> None:
        """See `TaskWeights.observe`. Losses that are not finite count as absent."""
        present = observation.active & observation.losses.isfinite()
        weights, self._diagnostics = self._weigh(observation, present)
        weights = torch.where(observation.active, weights, 0.0)
        if not torch.equal(weights, self._weights):
            self._weights = weights

    def diagnostics(self) -> Mapping[str, Tensor]:
        """See `TaskWeights.diagnostics`."""
        return self._diagnostics

    def state_dict(self) -> dict[str, Any]:
        """See `TaskWeights.state_dict`."""
        own = {"weights": self._weights, "diagnostics": self._diagnostics, "memory": self._memory()}
        return copy.deepcopy(own)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `TaskWeights.load_state_dict`.

        Raises:
            ConfigError: The state is of another number of tasks.
        """
        if state["weights"].shape != self._weights.shape:
            then, now = len(state["weights"]), len(self._weights)
            raise ConfigError("resume", f"the checkpoint has weights of {then} tasks, this run has {now}")
        own = copy.deepcopy(dict(state))
        self._weights, self._diagnostics = own["weights"], own["diagnostics"]
        self._recall(own["memory"])

    @abstractmethod
    def _weigh(self, observation: Observation, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Takes in one observation.

        Args:
            observation: See there.
            present: bool [K], the active tasks whose loss is known.

        Returns:
            New weights, float64 [K], finite and 0 or more (values of frozen tasks do not matter), and the
            diagnostics they come with. Tensors that no later observation changes.
        """

    @abstractmethod
    def _memory(self) -> dict[str, Any]:
        """What the next `_weigh` depends on, of tensors and plain values. It is copied by the caller."""

    @abstractmethod
    def _recall(self, memory: Mapping[str, Any]) -> None:
        """Continues from `_memory`; may keep what it is given."""


def warmup_for(draws: int | None) -> int:
    """Observations before slopes are trusted, where the user does not say: a pass over all draws, or 20.

    Losses of different draws differ by their samples. A slope through less than a pass shows which samples
    came early and which late, more than how the model learns.

    Args:
        draws: Probes on different samples before they repeat; None where training is watched.
    """
    return 20 if draws is None else max(_LEAST_WARMUP, draws)


def at_least(losses: Tensor) -> Tensor:
    """Losses with `LEAST_LOSS` in place of smaller ones; nan stays nan."""
    return losses.clamp(min=LEAST_LOSS)


def first_known(known: Tensor, losses: Tensor, present: Tensor) -> Tensor:
    """`known`, float64 [K], with the losses of those `present` tasks that had none (nan) so far."""
    return torch.where(known.isnan() & present, losses, known)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient that is 0 where the denominator is 0."""
    nothing = denominator == 0
    return (numerator / denominator.masked_fill(nothing, 1)).masked_fill(nothing, 0)


def relative(values: Tensor, mask: Tensor) -> Tensor:
    """Values divided by their mean size, K v_k / sum_j |v_j|, over the K tasks of a mask.

    Args:
        values: float64 [K]; of no account where `mask` is False, may be nan there.
        mask: bool [K].

    Returns:
        float64 [K]; 0 where `mask` is False, and all 0 where no value differs from 0.
    """
    values = values.masked_fill(~mask, 0)
    return ratio(mask.sum() * values, values.abs().sum())


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over some tasks.

    Args:
        scores: float64 [K]; of no account where `mask` is False, may be nan there.
        mask: bool [K].

    Returns:
        float64 [K], summing to 1; 0 where `mask` is False, and all 0 where it is False everywhere.
    """
    return torch.softmax(scores.masked_fill(~mask, -torch.inf), 0).masked_fill(~mask, 0)


def share_out(shares: Tensor, known: Tensor, active: Tensor) -> Tensor:
    """Weights of all active tasks, from shares of those about which enough is known.

    Each of the others has 1 / K, K being the number of active tasks, and the known ones divide the rest.

    Args:
        shares: float64 [K], summing to 1 over `known`, which is part of `active`.
        known: bool [K].
        active: bool [K].

    Returns:
        float64 [K], summing to 1; 0 for tasks that are not active.
    """
    count = active.sum().clamp(min=1)
    rest = torch.where(active, 1 / count.double(), 0.0)
    return torch.where(known, shares * (known.sum() / count.double()), rest)
