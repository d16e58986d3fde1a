"""Token losses: what one target token adds to the loss, before normalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from mftrun.losses.counts import Counts


@dataclass(frozen=True, eq=False)
class Targets:
    """The T target tokens of one micro-batch. A sample never spreads over two micro-batches.

    Attributes:
        nll: [T], -log p of each target token; carries the gradient.
        task_ids: int64 [T].
        sample_ids: int64 [T].
        sample_sizes: int64 [T], target tokens of the token's sample.
    """

    nll: Tensor
    task_ids: Tensor
    sample_ids: Tensor
    sample_sizes: Tensor


@runtime_checkable
class TokenLoss(Protocol):
    """Values that a normalization then averages."""

    def values(self, targets: Targets, counts: Counts) -> Tensor:
        """Loss of each target token, [T].

        Args:
            targets: The micro-batch.
            counts: Of the whole global batch.
        """
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """The nll itself."""

    def values(self, targets: Targets, counts: Counts) -> Tensor:
        """The nlls as they are, [T]."""
        return targets.nll
