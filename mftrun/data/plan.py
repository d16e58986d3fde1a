"""Plans: which rows each optimizer step trains, and how ranks and micro-batches share them.

A plan is a function of the data, the seed, the epoch and the tasks that have been frozen so far. The number
of ranks and the micro-batch size only say how a global batch is dealt out, so a run's place in its data is
two numbers, epoch and batch, and may be taken up by another number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mftrun.data.mixture import Int64Array, Sampler, generator
from mftrun.data.rows import Layout, RowBuilder, RowPlan

# Separate these streams of random numbers from the sampler's.
_ROW_STREAM = 2
_REGROUPED_STREAM = 6

# Plans that are kept: of the running epoch, and of the one before it that an error report may look at.
_MOST_KEPT = 2


class Freeze(NamedTuple):
    """From global batch `batch` of `epoch` on, no sample of `task` is trained.

    Attributes:
        task: number of the task.
        epoch: 0-based.
        batch: 0-based; earlier batches of the epoch stay as they are.
    """

    task: int
    epoch: int
    batch: int


_Key = tuple[int, tuple[Freeze, ...]]


def concerning(freezes: Sequence[Freeze], epoch: int) -> tuple[Freeze, ...]:
    """Return the freezes that an epoch's plan depends on: those of its own and of earlier ones."""
    return tuple(freeze for freeze in freezes if freeze.epoch <= epoch)


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """Rows in the order they are trained, cut into global batches.

    Attributes:
        rows: the rows; all row indices below point into it.
        global_batch_size: rows in a global batch; the last one of the epoch may hold fewer.
        layout: how the rows of a micro-batch lie in its tensors.
    """

    rows: RowPlan
    global_batch_size: int
    layout: Layout

    @property
    def num_batches(self) -> int:
        """Global batches, that is optimizer steps, in the epoch."""
        return -(-self.rows.num_rows // self.global_batch_size)

    def rows_of(self, batch_index: int) -> Int64Array:
        """Return the row indices of one global batch."""
        assert 0 <= batch_index < max(1, self.num_batches)
        start = batch_index * self.global_batch_size
        return np.arange(start, min(start + self.global_batch_size, self.rows.num_rows))

    def window(self, batch_index: int, rank: int, world_size: int, micro_batch_size: int) -> list[Int64Array]:
        """Return one rank's micro-batches of a global batch, each an array of row indices.

        Every rank gets the same number of micro-batches, the least that holds the batch; the last may be
        smaller, or empty. Rows are dealt from long to short: the j-th micro-batches of all ranks have
        similar lengths, so they pad little, and the one that needs most memory comes first.
        """
        assert 0 <= rank < world_size
        rows = self.rows_of(batch_index)
        rows = rows[np.argsort(-self.rows.lengths[rows], kind="stable")]
        turn = micro_batch_size * world_size
        return [rows[start : start + turn][rank::world_size] for start in range(0, len(rows), turn)]


@dataclass(frozen=True, eq=False)
class Planner:
    """Makes the plan of any epoch, and keeps the last two.

    A task that is frozen before an epoch is left out of the sampler's order. One that is frozen inside an
    epoch leaves its rows' other samples behind, which are grouped into rows anew with the rest of the epoch.

    Attributes:
        lengths: int64[S], tokens of each sample.
        task: int[S], task of each sample.
        sampler: chooses and orders an epoch's samples.
        rows: groups them into rows and orders the rows.
        seed: the run's seed.
        global_batch_size: rows per optimizer step over all ranks.
        max_length: most tokens a row may hold.
    """

    lengths: Int64Array
    task: npt.NDArray[Any]
    sampler: Sampler
    rows: RowBuilder
    seed: int
    global_batch_size: int
    max_length: int

    def epoch(self, epoch: int, freezes: Sequence[Freeze] = ()) -> EpochPlan:
        """Return the plan of an epoch (0-based): always the same for the same fields and freezes.

        It ends early, or has no batch at all, where nothing but samples of frozen tasks would be left.
        """
        key = epoch, concerning(freezes, epoch)
        plan = self._kept[key] if key in self._kept else self._plan(*key)
        self._keep(key, plan)
        return plan

    def total_batches(self, epochs: float) -> int:
        """Return the optimizer steps in `epochs` epochs; a begun step of a fractional epoch counts whole.

        Every epoch is planned for it, because a sampler may give each a different number of rows. That tasks
        may be frozen is not looked at: the length of a run is settled when it starts.
        """
        whole = math.floor(epochs)
        # 1.1 - 1 is a little more than 0.1 and must not cost a step.
        part = epochs - whole
        steps = math.ceil(part * self.epoch(whole).num_batches - 1e-9) if part else 0
        # The first epoch comes last: it is the one to be kept for the training that follows.
        return steps + sum(self.epoch(epoch).num_batches for epoch in reversed(range(whole)))

    @cached_property
    def _kept(self) -> dict[_Key, EpochPlan]:
        return {}

    def _keep(self, key: _Key, plan: EpochPlan) -> None:
        """Keep a plan as the newest, and so few of the others that they are `_MOST_KEPT` together."""
        self._kept.pop(key, None)
        self._kept[key] = plan
        while len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    def _plan(self, epoch: int, freezes: tuple[Freeze, ...]) -> EpochPlan:
        """Return the plan, made from that of the earlier freezes: one that is kept, else from the start."""
        regroupings = []
        while (batch := _newest_batch(freezes, epoch)) and (epoch, freezes) not in self._kept:
            regroupings.append((batch, freezes))
            freezes = tuple(freeze for freeze in freezes if (freeze.epoch, freeze.batch) != (epoch, batch))
        kept = self._kept.get((epoch, freezes))
        plan = self._plan_whole(epoch, freezes) if kept is None else kept
        for batch, known in reversed(regroupings):
            plan = self._regrouped(plan, epoch, batch, known)
        return plan

    def _plan_whole(self, epoch: int, freezes: Iterable[Freeze]) -> EpochPlan:
        order = self.sampler.order(self.task, self.seed, epoch)
        order = order[~np.isin(self.task[order], _frozen(freezes))]
        plan = self.rows.plan(self.lengths, order, self.max_length)
        arranged = self._arranged(plan, generator(self.seed, epoch, _ROW_STREAM))
        return EpochPlan(arranged, self.global_batch_size, self.rows.layout)

    def _regrouped(self, plan: EpochPlan, epoch: int, batch: int, freezes: Iterable[Freeze]) -> EpochPlan:
        """Return the plan with its rows from `batch` on made anew, without the frozen tasks."""
        done, left = np.split(np.arange(plan.rows.num_rows), [batch * self.global_batch_size])
        pieces, _ = plan.rows.pieces(left)
        pieces = pieces.take(~np.isin(self.task[pieces.samples], _frozen(freezes)))
        rng = generator(self.seed, epoch, _REGROUPED_STREAM, part=batch)
        rest = self._arranged(self.rows.place(pieces, self.max_length), rng)
        return replace(plan, rows=plan.rows.take(done).followed_by(rest))

    def _arranged(self, plan: RowPlan, rng: np.random.Generator) -> RowPlan:
        return plan.take(self.rows.arrange(plan.lengths, self.global_batch_size, rng))


def _newest_batch(freezes: Iterable[Freeze], epoch: int) -> int:
    """Return the last global batch of an epoch from which on tasks are frozen; 0 where none is inside it."""
    return max((freeze.batch for freeze in freezes if freeze.epoch == epoch), default=0)


def _frozen(freezes: Iterable[Freeze]) -> Int64Array:
    return np.array([freeze.task for freeze in freezes], np.int64)


def evaluation_plan(lengths: Int64Array, rows: RowBuilder, max_length: int) -> EpochPlan:
    """Return a plan of all samples as a single global batch, free of any random number.

    A rank evaluates `plan.window(0, rank, world_size, rows_per_micro_batch)`: over all ranks that is every
    row once, in equally many micro-batches on each rank. Samples that fit into a row are never cut.
    """
    builder = rows.for_evaluation
    plan = builder.plan(lengths, np.arange(len(lengths)), max_length)
    return EpochPlan(plan, max(1, plan.num_rows), builder.layout)
