"""A rank's share of every global batch, by epoch and batch number."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mftrun.data.batch import Batch, collate, window_counts
from mftrun.data.plan import EpochPlan, Planner
from mftrun.data.store import TokenStore


class Feed:
    """Deals the training samples to one rank.

    Args:
        store: The tokenized training samples.
        planner: Makes the plan of an epoch.
        total_steps: Optimizer steps of the whole run.
        rank: This rank.
        world_size: Number of ranks.
        micro_batch_size: Rows in one forward of one rank.
        pad_id: Token that fills rows.
        pin: Whether batches are put into page-locked memory for a GPU.
    """

    def __init__(
        self,
        store: TokenStore,
        planner: Planner,
        total_steps: int,
        *,
        rank: int,
        world_size: int,
        micro_batch_size: int,
        pad_id: int,
        pin: bool = False,
    ) -> None:
        self.tasks = store.tasks
        self.total_steps = total_steps
        self._store = store
        self._rank, self._world_size, self._micro_batch_size = rank, world_size, micro_batch_size
        self._pad_id, self._pin = pad_id, pin
        # Two epochs at a time: the running one, and the one before it that an error report may look at.
        self._plan = lru_cache(maxsize=2)(planner.epoch)

    def ballot(
        self, epoch: int, batch: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int, int]:
        """What this rank's window holds: targets [K], samples [K], tokens, positions. Reads no token."""
        plan, window = self._plan(epoch), self._rows(epoch, batch)
        targets, samples = window_counts(self._store, plan.rows, window, len(self.tasks))
        tokens = sum(int(plan.rows.lengths[rows].sum()) for rows in window)
        slots = sum(len(rows) * int(plan.rows.lengths[rows].max(initial=0)) for rows in window)
        return targets, samples, tokens, slots

    def window(self, epoch: int, batch: int) -> Iterator[Batch]:
        """Yields the micro-batches of this rank's window; equally many on every rank."""
        plan = self._plan(epoch)
        for rows in self._rows(epoch, batch):
            made = collate(self._store, plan.rows, rows, self._pad_id)
            yield made.pin() if self._pin else made

    def after(self, epoch: int, batch: int) -> tuple[int, int]:
        """The position behind a global batch."""
        following = batch + 1
        return (epoch + 1, 0) if following >= self._plan(epoch).num_batches else (epoch, following)

    def fraction(self, epoch: int, batch: int) -> float:
        """Epochs done at a position."""
        return epoch + (batch / self._plan(epoch).num_batches if batch else 0.0)

    def describe(self, sample: int) -> tuple[str, str]:
        """Task and place (file and line) of a sample."""
        origin = self._store.origin(sample)
        return self.tasks[int(self._store.task[sample])], f"{origin.path}:{origin.line} (sample {sample})"

    def _rows(self, epoch: int, batch: int) -> list[npt.NDArray[np.int64]]:
        plan: EpochPlan = self._plan(epoch)
        return plan.window(batch, self._rank, self._world_size, self._micro_batch_size)
