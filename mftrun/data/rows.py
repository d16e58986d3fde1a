"""Rows: what the model sees as one sequence, made of one sample (padding) or several (packing)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from mftrun.data.mixture import Int64Array, permutation
from mftrun.errors import ConfigError


@dataclass(frozen=True, eq=False)
class RowPlan:
    """Which samples stand in which row.

    Attributes:
        row_ptr: int64[R+1]; row r holds `samples[row_ptr[r]:row_ptr[r + 1]]`, one segment each.
        samples: int64[...], indices into the token store.
        lengths: int64[R], tokens in each row.
    """

    row_ptr: Int64Array
    samples: Int64Array
    lengths: Int64Array

    @property
    def num_rows(self) -> int:
        """Number of rows R."""
        return len(self.lengths)

    def segments(self, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return the samples of `rows`, row after row, and the number of segments, int64[len(rows)]."""
        counts = self.row_ptr[rows + 1] - self.row_ptr[rows]
        return self.samples[ranges(self.row_ptr[rows], counts)], counts

    def take(self, rows: Int64Array) -> RowPlan:
        """Return the plan made of `rows`, in that order."""
        samples, counts = self.segments(rows)
        return RowPlan(offsets(counts), samples, self.lengths[rows])


@runtime_checkable
class RowBuilder(Protocol):
    """Turns an epoch's samples into rows, and the rows into the order in which they are trained."""

    @property
    def shares_rows(self) -> bool:
        """Whether samples share rows, so that attention must keep them apart."""
        ...

    def plan(self, lengths: Int64Array, order: Int64Array, max_length: int) -> RowPlan:
        """Put every entry of `order` into exactly one row.

        Args:
            lengths: int64[S], tokens of each sample of the store, between 1 and `max_length`.
            order: int64[...], the samples to place, as a `Sampler` ordered them.
            max_length: most tokens a row may hold.
        """
        ...

    def arrange(self, lengths: Int64Array, global_batch_size: int, rng: np.random.Generator) -> Int64Array:
        """Return the permutation int64[R] in which the rows, int64[R] tokens long, are trained.

        Consecutive runs of `global_batch_size` rows become the global batches; only the last may be smaller.
        """
        ...


@dataclass(frozen=True)
class Packing:
    """Several samples a row, by best fit decreasing: almost no padding, attention isolated by positions."""

    @property
    def shares_rows(self) -> bool:
        """True."""
        return True

    def plan(self, lengths: Int64Array, order: Int64Array, max_length: int) -> RowPlan:
        """Pack the samples of `order` into rows; which of equally long ones goes where follows the order."""
        _check_lengths(lengths, order, max_length)
        longest_first = order[np.argsort(-lengths[order], kind="stable")]
        row_of = _best_fit_decreasing(lengths[longest_first], max_length)
        samples = longest_first[np.argsort(row_of, kind="stable")]
        row_ptr = offsets(np.bincount(row_of))
        tokens = offsets(lengths[samples])
        return RowPlan(row_ptr, samples, np.diff(tokens[row_ptr]))

    def arrange(self, lengths: Int64Array, global_batch_size: int, rng: np.random.Generator) -> Int64Array:
        """Shuffle the rows: they were made from long samples to short ones."""
        return permutation(len(lengths), rng)


@dataclass(frozen=True)
class Padding:
    """One sample a row; rows of similar length share a global batch, so that little is padded.

    Attributes:
        group_factor: global batches among which rows are sorted by length. More means less padding and
            less mixing of lengths within a batch; 1 keeps the sampler's order.
    """

    group_factor: int = 50

    def __post_init__(self) -> None:
        if self.group_factor < 1:
            raise ConfigError("rows.group_factor", f"must be 1 or more, not {self.group_factor}")

    @property
    def shares_rows(self) -> bool:
        """False."""
        return False

    def plan(self, lengths: Int64Array, order: Int64Array, max_length: int) -> RowPlan:
        """Give every sample of `order` a row of its own, in that order."""
        _check_lengths(lengths, order, max_length)
        return RowPlan(np.arange(len(order) + 1), order, lengths[order])

    def arrange(self, lengths: Int64Array, global_batch_size: int, rng: np.random.Generator) -> Int64Array:
        """Sort by length within runs of `group_factor` batches, then shuffle the batches.

        The rows left over for a smaller last batch are the last of the sampler's order, thus of any length.
        """
        rows = np.arange(len(lengths))
        whole = len(rows) - len(rows) % global_batch_size
        group = rows[:whole] // (self.group_factor * global_batch_size)
        batches = np.lexsort((lengths[:whole], group)).reshape(-1, global_batch_size)
        return np.concatenate([batches[permutation(len(batches), rng)].ravel(), rows[whole:]])


def offsets(counts: Int64Array) -> Int64Array:
    """Return int64[n+1]: 0 and the running sums of `counts` int64[n]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def ranges(starts: Int64Array, counts: Int64Array) -> Int64Array:
    """Return `starts[i], starts[i] + 1, …` (`counts[i]` numbers) for every i, concatenated."""
    first = offsets(counts)
    return np.arange(first[-1]) + np.repeat(starts - first[:-1], counts)


def _check_lengths(lengths: Int64Array, order: Int64Array, max_length: int) -> None:
    chosen = lengths[order]
    assert ((chosen > 0) & (chosen <= max_length)).all(), "preparing the data lets no such sample in"


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
