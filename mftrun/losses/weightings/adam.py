"""Adam for one parameter per task, where tasks come and go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class TaskAdam:
    """Adam (arXiv 1412.6980, Algorithm 1) on one float64 parameter per task, from 0.

    Where all tasks take part it equals `torch.optim.Adam`. A task that takes no part in an update keeps its
    parameter and its averages, and does not count the update: it is as if there had been none.

    Args:
        num_tasks: K.
        lr: Step size.
        weight_decay: Added to the gradient as that much of the parameter (L2, as in `torch.optim.Adam`).
    """

    def __init__(self, num_tasks: int, lr: float, weight_decay: float = 0.0) -> None:
        self._lr, self._weight_decay = lr, weight_decay
        self._values = torch.zeros(num_tasks, dtype=torch.float64)
        self._first, self._second = torch.zeros_like(self._values), torch.zeros_like(self._values)
        self._updates = torch.zeros_like(self._values)

    @property
    def values(self) -> Tensor:
        """The parameters, float64 [K]; a new tensor with each update."""
        return self._values

    def update(self, gradient: Tensor, taking_part: Tensor) -> None:
        """Makes one step down the gradient.

        Args:
            gradient: float64 [K]; of no account where a task takes no part.
            taking_part: bool [K].
        """
        gradient = torch.where(taking_part, gradient + self._weight_decay * self._values, 0.0)
        updates = self._updates + taking_part
        first = self._first.lerp(gradient, 1 - _BETA1)
        second = self._second.lerp(gradient.square(), 1 - _BETA2)
        step = first / (1 - _BETA1**updates) / ((second / (1 - _BETA2**updates)).sqrt() + _EPSILON)
        self._values = torch.where(taking_part, self._values - self._lr * step, self._values)
        self._first = torch.where(taking_part, first, self._first)
        self._second = torch.where(taking_part, second, self._second)
        self._updates = updates

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters, averages and numbers of updates, float64 [K] each."""
        return {
            "values": self._values,
            "first": self._first,
            "second": self._second,
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state_dict`."""
        self._values, self._updates = state["values"], state["updates"]
        self._first, self._second = state["first"], state["second"]
