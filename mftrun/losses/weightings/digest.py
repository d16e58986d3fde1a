"""A bounded memory of a long series of numbers, for sums of exponentials over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Digest:
    """Numbers seen so far, each with how many it stands for: exact up to `capacity`, then close.

    When it is full, neighbours on the number line are merged into their mean, those first that change the
    second moment least; what is far from all others stays as it is. The sums of counts, numbers and absolute
    numbers stay exact.

    Args:
        capacity: Numbers held, a multiple of 4.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._values = torch.zeros(capacity, dtype=torch.float64)
        self._counts = torch.zeros(capacity, dtype=torch.float64)
        self._held = 0
        self._number = 0
        self._absolute = 0.0

    @property
    def number(self) -> int:
        """How many numbers there were."""
        return self._number

    @property
    def absolute(self) -> float:
        """Sum of their absolute values."""
        return self._absolute

    def add(self, value: float) -> None:
        """Takes the next number, a finite one."""
        if self._held == len(self._values):
            self._merge()
        self._values[self._held], self._counts[self._held] = value, 1.0
        self._held += 1
        self._number += 1
        self._absolute += abs(value)

    def log_sum_exp(self, scale: float) -> Tensor:
        """Logarithm of the sum of exp(scale * value) over all numbers, float64 []."""
        return torch.logsumexp(scale * self._values + self._counts.log(), 0)

    def state_dict(self) -> dict[str, Any]:
        """What is held, and the sums."""
        return {
            "values": self._values,
            "counts": self._counts,
            "held": self._held,
            "number": self._number,
            "absolute": self._absolute,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state_dict`."""
        self._values, self._counts = state["values"], state["counts"]
        self._held, self._number, self._absolute = state["held"], state["number"], state["absolute"]

    def _merge(self) -> None:
        """Frees a quarter of the places: merges that half of the neighbouring pairs which costs least."""
        order = self._values.argsort(stable=True)
        values, counts = self._values[order].view(-1, 2), self._counts[order].view(-1, 2)
        total = counts.sum(1)
        cost = counts.prod(1) / total * (values[:, 1] - values[:, 0]).square()
        ranked = cost.argsort(stable=True)
        merged, kept = ranked[: len(ranked) // 2], ranked[len(ranked) // 2 :]
        means = (values[merged] * counts[merged]).sum(1) / total[merged]
        self._held = len(means) + 2 * len(kept)
        self._values.zero_()[: self._held] = torch.cat([means, values[kept].flatten()])
        self._counts.zero_()[: self._held] = torch.cat([total[merged], counts[kept].flatten()])
