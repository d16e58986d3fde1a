"""A rank's share of every global batch, by epoch and batch number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from mftrun.data.batch import Batch, collate, window_counts
from mftrun.data.epochs import Epoch, Epochs
from mftrun.data.plan import EpochPlan, Freeze

_MOST_EMPTY = 100  # epochs without a batch before it is clear that there will be none


class Feed:
    """Deals the training samples to one rank.

    Args:
        epochs: The tokenized samples of each epoch, and their plan.
        total_steps: Optimizer steps of the whole run.
        rank: This rank.
        world_size: Number of ranks.
        micro_batch_size: Rows in one forward of one rank.
        pad_id: Token that fills rows.
        pin: Whether batches are put into page-locked memory for a GPU.
    """

    def __init__(
        self,
        epochs: Epochs,
        total_steps: int,
        *,
        rank: int,
        world_size: int,
        micro_batch_size: int,
        pad_id: int,
        pin: bool = False,
    ) -> None:
        self.tasks = list(epochs.tasks)
        self.total_steps = total_steps
        self._epochs = epochs
        self._freezes: tuple[Freeze, ...] = ()
        self._newest = 0
        self._rank, self._world_size, self._micro_batch_size = rank, world_size, micro_batch_size
        self._pad_id, self._pin = pad_id, pin

    def freeze(self, freezes: Sequence[Freeze]) -> None:
        """Deals no more samples of some tasks, each from a place on; what was dealt before stays as it was.

        Args:
            freezes: All of them, those that this has been told before, too.
        """
        self._freezes = tuple(freezes)

    def settle(self, epoch: int, batch: int) -> tuple[int, int] | None:
        """The first position from this one on at which there is a global batch. May wait for data.

        It is another one only behind the end of an epoch: of one that a freeze has ended early, or one in
        which all samples would be of frozen tasks.

        Returns:
            None where there is none: what the sampler takes is all of frozen tasks.

        Raises:
            MftrunError, WaitEndedError: As `Epochs.epoch`.
        """
        for number in range(epoch, epoch + _MOST_EMPTY):
            if batch < self._epoch(number).plan.num_batches:
                return number, batch
            batch = 0
        return None

    def ballot(
        self, epoch: int, batch: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int, int]:
        """What this rank's window holds: weighted targets [K], samples [K], tokens, positions.

        No token is read.
        """
        samples, plan = self._epoch(epoch)
        window = self._rows(plan, batch)
        targets, counts = window_counts(samples, plan.rows, window, len(self.tasks))
        tokens = sum(int(plan.rows.lengths[rows].sum()) for rows in window)
        slots = sum(prod(plan.layout.shape(plan.rows.lengths[rows])) for rows in window)
        return targets, counts, tokens, slots

    def window(self, epoch: int, batch: int) -> Iterator[Batch]:
        """Yields the micro-batches of this rank's window; equally many on every rank."""
        samples, plan = self._epoch(epoch)
        self._newest = epoch
        for rows in self._rows(plan, batch):
            made = collate(samples, plan.rows, rows, self._pad_id, plan.layout)
            yield made.pin() if self._pin else made

    def after(self, epoch: int, batch: int) -> tuple[int, int]:
        """The position behind a global batch. Data that is not there yet is not asked for: see `settle`."""
        following = batch + 1
        return (epoch + 1, 0) if following >= self._epoch(epoch).plan.num_batches else (epoch, following)

    def is_over(self, epoch: int, batch: int) -> bool:
        """Whether the step that led to a position was the last of its epoch. Waits for no data.

        A freeze at the position may have made it that: then nothing but samples of frozen tasks was left.

        Args:
            epoch: As `after` gave it.
            batch: As `after` gave it; 0 is behind the end of the epoch before.
        """
        return batch == 0 or batch >= self._epoch(epoch).plan.num_batches

    def fraction(self, epoch: int, batch: int) -> float:
        """Epochs done at a position."""
        return epoch + (batch / self._epoch(epoch).plan.num_batches if batch else 0.0)

    def describe(self, sample: int) -> tuple[str, str]:
        """Task and place (file and line) of a sample of the epoch that a window was last dealt of."""
        samples = self._epoch(self._newest).samples
        origin = samples.origin(sample)
        return self.tasks[int(samples.task[sample])], f"{origin.path}:{origin.line} (sample {sample})"

    def _epoch(self, number: int) -> Epoch:
        return self._epochs.epoch(number, self._freezes)

    def _rows(self, plan: EpochPlan, batch: int) -> list[npt.NDArray[np.int64]]:
        return plan.window(batch, self._rank, self._world_size, self._micro_batch_size)
