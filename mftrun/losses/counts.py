"""What a loss must know of its whole global batch before the first backward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Counts:
    """Target tokens and samples of every task, in one rank's window or in the whole global batch.

    Attributes:
        tokens: float64 [K], target tokens N_k; one of weight w counts as w tokens.
        samples: float64 [K], samples with at least one target token, S_k.
    """

    tokens: Tensor
    samples: Tensor

    @classmethod
    def zeros(cls, num_tasks: int, device: torch.device | str = "cpu") -> Counts:
        """Counts of nothing."""
        return cls.from_vector(torch.zeros(2 * num_tasks, dtype=torch.float64, device=device))

    @classmethod
    def from_vector(cls, vector: Tensor) -> Counts:
        """The counts that `stack` made into a vector.

        Args:
            vector: float64 [2K].
        """
        tokens, samples = vector.chunk(2)
        return cls(tokens, samples)

    def stack(self) -> Tensor:
        """One float64 [2K] vector, to be summed over the ranks by one all-reduce."""
        return torch.cat([self.tokens, self.samples])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Counts:
        """The counts on `device`."""
        return Counts.from_vector(self.stack().to(device, non_blocking=non_blocking))

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tokens + other.tokens, self.samples + other.samples)
