"""Normalizations: the coefficient of every target token in the loss of the global batch.

Each is a linear rule, loss = sum_i c_i * v_i * value_i, so shares of micro-batches and ranks simply add up.
Token i has the weight v_i (1, unless the data says otherwise) and counts as v_i tokens everywhere: it belongs
to task k and to a sample s of n_s target tokens, N_k and S_k count the target tokens and samples of task k in
the whole global batch, n_s and N_k are sums of v_i, and P is the set of tasks with N_k > 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from mftrun.losses.counts import Counts


@runtime_checkable
class Normalization(Protocol):
    """Decides how much every target token counts.

    Attributes:
        uses_weights: Whether task weights change the coefficients.
    """

    uses_weights: ClassVar[bool]

    def coefficients(self, counts: Counts, weights: Tensor, task_ids: Tensor, sample_sizes: Tensor) -> Tensor:
        """Coefficient c_i of each target token, by which its weighted value is multiplied.

        Args:
            counts: Of the whole global batch.
            weights: float64 [K], task weights, 0 or more.
            task_ids: int64 [T].
            sample_sizes: float64 [T], n_s of each token's sample.

        Returns:
            float64 [T].
        """
        ...


@dataclass(frozen=True)
class TokenMean:
    """Every target token counts the same: c_i = 1 / sum_k N_k (MFTCoder's case1)."""

    uses_weights: ClassVar[bool] = False

    def coefficients(self, counts: Counts, weights: Tensor, task_ids: Tensor, sample_sizes: Tensor) -> Tensor:
        """See `Normalization.coefficients`."""
        return _ratio(torch.ones_like(counts.tokens[:1]), counts.tokens.sum()).expand(task_ids.shape[0])


@dataclass(frozen=True)
class SampleMean:
    """Every sample counts the same: c_i = 1 / (n_s * sum_k S_k) (MFTCoder's case2)."""

    uses_weights: ClassVar[bool] = False

    def coefficients(self, counts: Counts, weights: Tensor, task_ids: Tensor, sample_sizes: Tensor) -> Tensor:
        """See `Normalization.coefficients`."""
        return _ratio(torch.ones_like(counts.samples[:1]), counts.samples.sum()) / sample_sizes


@dataclass(frozen=True)
class TaskMean:
    """Every task counts by its weight: c_i = w_k / (N_k * sum_P w) (MFTCoder's case3).

    Equation 1 of arXiv 2311.02303.
    """

    uses_weights: ClassVar[bool] = True

    def coefficients(self, counts: Counts, weights: Tensor, task_ids: Tensor, sample_sizes: Tensor) -> Tensor:
        """See `Normalization.coefficients`."""
        return _ratio(_task_shares(counts, weights), counts.tokens)[task_ids]


@dataclass(frozen=True)
class TaskSampleMean:
    """Tasks by weight, and samples alike within one: c_i = w_k / (n_s * S_k * sum_P w) (MFTCoder's case4)."""

    uses_weights: ClassVar[bool] = True

    def coefficients(self, counts: Counts, weights: Tensor, task_ids: Tensor, sample_sizes: Tensor) -> Tensor:
        """See `Normalization.coefficients`."""
        return _ratio(_task_shares(counts, weights), counts.samples)[task_ids] / sample_sizes


def _task_shares(counts: Counts, weights: Tensor) -> Tensor:
    """Task weights as shares of the tasks present in the global batch, float64 [K]; absent tasks get 0."""
    present = torch.where(counts.tokens > 0, weights, torch.zeros_like(weights))
    return _ratio(present, present.sum())


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient that is 0 where the denominator is 0, in value and in gradient."""
    nothing = denominator == 0
    safe = denominator.masked_fill(nothing, 1)
    return (numerator / safe).masked_fill(nothing, 0)
