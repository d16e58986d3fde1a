"""What every way of making rows shares: pieces of samples, plans of rows, the builder's protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from mftrun.data.mixture import Int64Array
from mftrun.data.rows.layout import Layout, Padded


class Pieces(NamedTuple):
    """Consecutive tokens of samples; usually whole samples.

    Attributes:
        samples: int64[n], which sample.
        starts: int64[n], the piece's first token, counted from the sample's.
        sizes: int64[n], tokens, 1 or more.
    """

    samples: Int64Array
    starts: Int64Array
    sizes: Int64Array

    def take(self, chosen: npt.NDArray[Any]) -> Pieces:
        """Return the pieces that `chosen` picks: indices, in that order, or a mask."""
        return Pieces(self.samples[chosen], self.starts[chosen], self.sizes[chosen])

    @classmethod
    def whole(cls, lengths: Int64Array, order: Int64Array) -> Self:
        """Return one piece for every entry of `order`: all tokens of that sample."""
        return cls(order, np.zeros_like(order), lengths[order])


@dataclass(frozen=True, eq=False)
class RowPlan:
    """Which pieces of samples stand in which row.

    Attributes:
        row_ptr: int64[R+1]; row r holds the pieces `row_ptr[r]:row_ptr[r + 1]`, one segment each.
        samples: int64[...], the sample of each piece.
        starts: int64[...], the first token of each piece, counted from its sample's.
        sizes: int64[...], tokens of each piece.
        lengths: int64[R], tokens in each row.
    """

    row_ptr: Int64Array
    samples: Int64Array
    starts: Int64Array
    sizes: Int64Array
    lengths: Int64Array

    @classmethod
    def of(cls, pieces: Pieces, row_ptr: Int64Array) -> RowPlan:
        """Return the plan that puts `pieces[row_ptr[r]:row_ptr[r + 1]]` into row r."""
        return cls(row_ptr, *pieces, lengths=np.diff(offsets(pieces.sizes)[row_ptr]))

    @property
    def num_rows(self) -> int:
        """Number of rows R."""
        return len(self.lengths)

    def pieces(self, rows: Int64Array) -> tuple[Pieces, Int64Array]:
        """Return the pieces of `rows`, row after row, and the number in each, int64[len(rows)]."""
        counts = self.row_ptr[rows + 1] - self.row_ptr[rows]
        chosen = ranges(self.row_ptr[rows], counts)
        return Pieces(self.samples, self.starts, self.sizes).take(chosen), counts

    def take(self, rows: Int64Array) -> RowPlan:
        """Return the plan made of `rows`, in that order."""
        pieces, counts = self.pieces(rows)
        return RowPlan(offsets(counts), *pieces, lengths=self.lengths[rows])

    def followed_by(self, other: RowPlan) -> RowPlan:
        """Return the plan of these rows and, behind them, those of `other`."""
        return RowPlan(
            np.concatenate([self.row_ptr, self.row_ptr[-1] + other.row_ptr[1:]]),
            np.concatenate([self.samples, other.samples]),
            np.concatenate([self.starts, other.starts]),
            np.concatenate([self.sizes, other.sizes]),
            np.concatenate([self.lengths, other.lengths]),
        )


@runtime_checkable
class RowBuilder(Protocol):
    """Turns an epoch's samples into rows, and the rows into the order in which they are trained."""

    @property
    def shares_rows(self) -> bool:
        """Whether samples share rows, so that attention must keep them apart."""
        ...

    @property
    def splits_samples(self) -> bool:
        """Whether a sample may go on in another row, so that it may be longer than one."""
        ...

    @property
    def layout(self) -> Layout:
        """How the rows of a micro-batch lie in its tensors."""
        ...

    @property
    def for_evaluation(self) -> RowBuilder:
        """The builder of validation rows: it cuts no sample that fits into a row.

        So validation losses are those of whole samples, the same for every way of making rows.
        """
        ...

    def plan(self, lengths: Int64Array, order: Int64Array, max_length: int) -> RowPlan:
        """Put every entry of `order` into rows: each of its tokens once, in one row or over several.

        Args:
            lengths: int64[S], tokens of each sample, 1 or more; at most `max_length` unless `splits_samples`.
            order: int64[...], the samples to place, as a `Sampler` ordered them.
            max_length: most tokens of a sample, and of a row unless the builder has a limit of its own.
        """
        ...

    def place(self, pieces: Pieces, max_length: int) -> RowPlan:
        """Put pieces into rows: what `plan` does with whole samples, and what regroups rows made before.

        Every target of the pieces is in the rows once. Only a builder that `splits_samples` may cut a piece,
        or join pieces of a sample that go on one after the other.

        Args:
            pieces: in the order of their samples; each fits into a row, unless the builder `splits_samples`.
            max_length: as in `plan`.
        """
        ...

    def arrange(self, lengths: Int64Array, global_batch_size: int, rng: np.random.Generator) -> Int64Array:
        """Return the permutation int64[R] in which the rows, int64[R] tokens long, are trained.

        Consecutive runs of `global_batch_size` rows become the global batches; only the last may be smaller.
        """
        ...


class WholeSamples(ABC):
    """What builders have in common that cut no sample, and lay rows out padded unless they say otherwise."""

    @abstractmethod
    def place(self, pieces: Pieces, max_length: int) -> RowPlan:
        """Put pieces into rows; see `RowBuilder.place`."""

    def plan(self, lengths: Int64Array, order: Int64Array, max_length: int) -> RowPlan:
        """Put the samples of `order` into rows; see `RowBuilder.plan`."""
        check_lengths(lengths, order, max_length)
        return self.place(Pieces.whole(lengths, order), max_length)

    @property
    def splits_samples(self) -> bool:
        """False."""
        return False

    @property
    def layout(self) -> Layout:
        """Rows padded to the longest of them."""
        return Padded()

    @property
    def for_evaluation(self) -> Self:
        """The same: no sample is cut."""
        return self


def offsets(counts: Int64Array) -> Int64Array:
    """Return int64[n+1]: 0 and the running sums of `counts` int64[n]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def ranges(starts: Int64Array, counts: Int64Array) -> Int64Array:
    """Return `starts[i], starts[i] + 1, …` (`counts[i]` numbers) for every i, concatenated."""
    first = offsets(counts)
    return np.arange(first[-1]) + np.repeat(starts - first[:-1], counts)


def check_lengths(lengths: Int64Array, order: Int64Array, longest: int | None) -> None:
    """Assert that the samples of `order` have tokens, and at most `longest` of them (None: any number)."""
    chosen = lengths[order]
    fits = chosen <= chosen if longest is None else chosen <= longest
    assert ((chosen > 0) & fits).all(), "preparing the data lets no such sample in"
