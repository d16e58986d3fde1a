"""Token losses: what one target token adds to the loss, before normalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from mftrun.losses.counts import Counts


@dataclass(frozen=True, eq=False)
class Targets:
    """The T target tokens of one micro-batch. A sample never spreads over two micro-batches.

    Where rows cut a document, each of its pieces is a sample; so is each occurrence of a repeated sample.

    Attributes:
        nll: [T], -log p of each target token; carries the gradient.
        target_weights: [T], how many tokens each counts as; a mean over tokens must be weighted by it.
        task_ids: int64 [T].
        sample_ids: int64 [T], equal for the tokens of one sample, and only comparable within the micro-batch.
        sample_sizes: float64 [T], summed weight of the targets of the token's sample.
    """

    nll: Tensor
    target_weights: Tensor
    task_ids: Tensor
    sample_ids: Tensor
    sample_sizes: Tensor


@runtime_checkable
class TokenLoss(Protocol):
    """Values that a normalization then averages."""

    def values(self, targets: Targets, counts: Counts) -> Tensor:
        """Loss of each target token, [T], not yet multiplied by its weight.

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
