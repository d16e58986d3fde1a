"""What a task weighting is: a configuration that is built into the weights of a run's tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Watch = Literal["probe", "train"]


@dataclass(frozen=True, eq=False)
class Observation:
    """Losses of all tasks, as they were measured at one step. The same on every rank, bit for bit.

    Attributes:
        step: Optimizer steps done when they were measured.
        losses: float64 [K] on the CPU, means over target tokens in nats; nan for a task that was absent.
        active: bool [K]; False for a task that is frozen and takes no part any more.
        draw: What they were measured on: observations of the same draw are of the same samples. Those of
            training are numbered in a row, and a gap means that the model was put back in between.
        gradient_norms: float64 [K], norm of the gradient of each task's weighted loss in the step before; nan
            where absent. None unless the weighting asks for them.
    """

    step: int
    losses: Tensor
    active: Tensor
    draw: int
    gradient_norms: Tensor | None = None


class TaskWeights(Protocol):
    """The weights of a run's tasks as they are now."""

    @property
    def warmup(self) -> int:
        """Observations before any weight can change, 0 or more."""
        ...

    def current(self) -> Tensor:
        """float64 [K] on the CPU, 0 or more. A new tensor object whenever a weight has changed."""
        ...

    def observe(self, observation: Observation) -> None:
        """Takes in losses; the weights may change by it. A function of what was observed so far, alone."""
        ...

    def diagnostics(self) -> Mapping[str, Tensor]:
        """What the current weights were computed from, for the log: name → float64 [K] or [].

        An entry of nan is left out of the log. Empty before anything was computed.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to continue, of tensors and plain values. Bounded in size."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state_dict`."""
        ...


@runtime_checkable
class Weighting(Protocol):
    """Configuration of a weighting; `build` makes it run."""

    @property
    def weighs(self) -> bool:
        """Whether any task can get another weight than the others."""
        ...

    @property
    def watch(self) -> Watch | None:
        """Which losses it is to observe: the probe's, those of training, or None at all."""
        ...

    @property
    def draw_repeats(self) -> int:
        """Probes in a row that are taken on the same samples, 1 or more."""
        ...

    @property
    def needs_gradient_norms(self) -> bool:
        """Whether observations must hold `gradient_norms`."""
        ...

    def build(self, tasks: Sequence[str], draws: int | None = None) -> TaskWeights:
        """The weights of these tasks, in their order.

        Args:
            tasks: Names of the run's tasks.
            draws: Probes on different samples before they repeat; None where nothing is probed.

        Raises:
            ConfigError: A setting does not fit these tasks.
        """
        ...


def uniform(num_tasks: int) -> Tensor:
    """Weights of a weighting that has seen too little yet: float64 [K], 1 / K each."""
    return torch.full((num_tasks,), 1 / max(num_tasks, 1), dtype=torch.float64)
