"""Token losses: what one target token adds to the loss, before normalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Targets:
    """The T target tokens of one micro-batch. A sample never spreads over two micro-batches.

    Where rows cut a document, each of its pieces is a sample; so is each occurrence of a repeated sample.

    Attributes:
        nll: [T], -log p of each target token; carries the gradient.
        target_weights: [T], how many tokens each counts as; a mean over tokens must be weighted by it.
        task_ids: int64 [T].
        sample_ids: int64 [T], equal for the tokens of one sample, and only comparable within the micro-batch.
        sample_sizes: [T], summed weight of the targets of the token's sample.
    """

    nll: Tensor
    target_weights: Tensor
    task_ids: Tensor
    sample_ids: Tensor
    sample_sizes: Tensor


class TokenValues(Protocol):
    """A token loss in a run with K tasks."""

    @property
    def needs_statistics(self) -> bool:
        """Whether `values` must know something of the nlls of the whole global batch."""
        ...

    def statistics(self, targets: Targets, shares: Tensor) -> Tensor:
        """What `values` must know of one micro-batch; the sum over those of all ranks is what it is given.

        Args:
            targets: The micro-batch; its gradient is not followed.
            shares: float64 [T], factor of each token's value in the loss of the global batch.

        Returns:
            float64 [S], S fixed for the run; empty where nothing is needed.
        """
        ...

    def values(self, targets: Targets, statistics: Tensor | None) -> Tensor:
        """Loss of each target token, [T], not yet multiplied by its share.

        Args:
            targets: The micro-batch.
            statistics: float64 [S], summed over the global batch; None where none are needed.
        """
        ...


@runtime_checkable
class TokenLoss(Protocol):
    """Configuration of a token loss; `for_tasks` makes it run."""

    def for_tasks(self, tasks: Sequence[str]) -> TokenValues:
        """The token loss of a run.

        Args:
            tasks: Names, in the order of the task ids.

        Raises:
            ConfigError: A setting does not fit these tasks.
        """
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """The nll itself."""

    needs_statistics: ClassVar[bool] = False

    def for_tasks(self, tasks: Sequence[str]) -> CrossEntropy:
        """Itself: all tasks are alike."""
        return self

    def statistics(self, targets: Targets, shares: Tensor) -> Tensor:
        """Nothing, float64 [0]."""
        return shares[:0]

    def values(self, targets: Targets, statistics: Tensor | None) -> Tensor:
        """The nlls as they are, [T]."""
        return targets.nll
