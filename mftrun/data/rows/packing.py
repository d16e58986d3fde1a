"""Packing: rows filled with whole samples by best fit decreasing."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from mftrun.data.mixture import Int64Array, permutation
from mftrun.data.rows.base import Pieces, RowPlan, WholeSamples, check_lengths, offsets, ranges


@dataclass(frozen=True)
class Packing(WholeSamples):
    """Several samples a row, by best fit decreasing: almost no padding, attention isolated by positions."""

    @property
    def shares_rows(self) -> bool:
        """True."""
        return True

    def place(self, pieces: Pieces, max_length: int) -> RowPlan:
        """Pack the pieces into rows; which of equally long ones goes where follows their order."""
        longest_first = pieces.take(np.argsort(-pieces.sizes, kind="stable"))
        row_of = _best_fit_decreasing(longest_first.sizes, max_length)
        row_ptr = offsets(np.bincount(row_of))
        return RowPlan.of(longest_first.take(np.argsort(row_of, kind="stable")), row_ptr)

    def arrange(self, lengths: Int64Array, global_batch_size: int, rng: np.random.Generator) -> Int64Array:
        """Shuffle the rows: they were made from long samples to short ones."""
        return permutation(len(lengths), rng)


@dataclass(frozen=True)
class SplitPacking(Packing):
    """Packing in which a sample longer than a row is cut into several pieces, and no other sample is.

    A piece repeats the last token of the one before it, from which its first target is predicted.
    """

    @property
    def splits_samples(self) -> bool:
        """True."""
        return True

    def plan(self, lengths: Int64Array, order: Int64Array, max_length: int) -> RowPlan:
        """Pack the pieces of the samples of `order`; `max_length` is 2 or more."""
        check_lengths(lengths, order, None)
        return self.place(_cut_long(Pieces.whole(lengths, order), max_length), max_length)


def _cut_long(whole: Pieces, max_length: int) -> Pieces:
    step = max_length - 1  # tokens of a piece that the next one does not repeat
    counts = np.maximum(1, -(-(whole.sizes - 1) // step))
    owner = np.repeat(np.arange(len(counts)), counts)
    starts = step * ranges(np.zeros_like(counts), counts)
    return Pieces(whole.samples[owner], starts, np.minimum(max_length, whole.sizes[owner] - starts))


def _best_fit_decreasing(lengths: Int64Array, max_length: int) -> Int64Array:
    """Return the row int64[n] of each of `lengths` int64[n], which must not increase."""
    values, counts = np.unique(-lengths, return_counts=True)
    rows, takes = _fill(zip((-values).tolist(), counts.tolist(), strict=True), max_length)
    return np.repeat(np.array(rows, np.int64), np.array(takes, np.int64))


def _fill(runs: Iterable[tuple[int, int]], max_length: int) -> tuple[list[int], list[int]]:
    """Place runs of (length, count); return the rows in the order they were filled, and how many each took.

    A row that took one item of a length is the tightest fit for the next of that length as long as it has
    the space. So best fit fills it in one go, and the work grows with the rows touched, not with the items.
    """
    rows: list[int] = []
    takes: list[int] = []
    open_rows = _OpenRows(max_length)
    for length, count in runs:
        while count:
            row, space = open_rows.pop(length)
            take = min(space // length, count)
            open_rows.push(row, space - take * length)
            rows.append(row)
            takes.append(take)
            count -= take
    return rows, takes


@dataclass
class _OpenRows:
    """Rows by the space left in them."""

    max_length: int
    created: int = 0
    spaces: list[int] = field(default_factory=list)  # sorted, distinct
    rows: dict[int, list[int]] = field(default_factory=dict)

    def pop(self, length: int) -> tuple[int, int]:
        """Return the row with the least space of at least `length`, else a new one, and that space."""
        at = bisect_left(self.spaces, length)
        if at == len(self.spaces):
            self.created += 1
            return self.created - 1, self.max_length
        space = self.spaces[at]
        rows = self.rows[space]
        row = rows.pop()
        if not rows:
            del self.rows[space], self.spaces[at]
        return row, space

    def push(self, row: int, space: int) -> None:
        """Keep `row` open if it has any space left."""
        if not space:
            return
        if space not in self.rows:
            insort(self.spaces, space)
            self.rows[space] = []
        self.rows[space].append(row)
