"""Concatenation, for pre-training: documents joined and cut into full rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mftrun.data.mixture import Int64Array
from mftrun.data.rows.base import Pieces, RowPlan, check_lengths, offsets, ranges
from mftrun.data.rows.layout import Layout, Padded
from mftrun.data.rows.packing import SplitPacking
from mftrun.errors import ConfigError


@dataclass(frozen=True)
class Concat:
    """Documents joined in the sampler's order and cut into rows of exactly `max_length` tokens.

    A document that does not fit goes on in the next row. The piece there repeats the last token before the
    cut, from which its first target is predicted, so that no target is lost. Pieces do not see each other,
    and count as a sample each. Only the epoch's last row may be shorter.
    """

    @property
    def shares_rows(self) -> bool:
        """True."""
        return True

    @property
    def splits_samples(self) -> bool:
        """True."""
        return True

    @property
    def layout(self) -> Layout:
        """Rows padded to the longest of them, which only the epoch's last one is shorter than."""
        return Padded()

    @property
    def for_evaluation(self) -> SplitPacking:
        """Packing: documents are cut only where they are longer than a row."""
        return SplitPacking()

    def plan(self, lengths: Int64Array, order: Int64Array, max_length: int) -> RowPlan:
        """Cut the documents of `order` into rows.

        Raises:
            ConfigError: A row has no space for a repeated token and a new one.
        """
        check_lengths(lengths, order, None)
        if max_length < 2:
            raise ConfigError("data.max_length", f"must be 2 or more for rows=concat, not {max_length}")
        documents = offsets(lengths[order])
        starts = _row_starts(documents, max_length)
        ends = np.minimum(starts + max_length, documents[-1])
        return _intersected(documents, order, starts, ends)

    def arrange(self, lengths: Int64Array, global_batch_size: int, rng: np.random.Generator) -> Int64Array:
        """Keep the sampler's order."""
        return np.arange(len(lengths))


def _row_starts(documents: Int64Array, max_length: int) -> Int64Array:
    """Return where each row starts in the joined tokens; `documents` are the offsets of the documents."""
    starts: list[int] = []
    start, total = 0, int(documents[-1])
    while start < total:
        starts.append(start)
        end = start + max_length
        if end >= total:
            break
        is_border = documents[np.searchsorted(documents, end)] == end
        start = end if is_border else end - 1
    return np.array(starts, np.int64)


def _intersected(documents: Int64Array, order: Int64Array, starts: Int64Array, ends: Int64Array) -> RowPlan:
    """Return the rows `starts[r]:ends[r]` of the joined tokens as pieces of documents."""
    first = np.searchsorted(documents, starts, side="right") - 1
    counts = np.searchsorted(documents, ends, side="left") - first
    document = ranges(first, counts)
    begin = np.maximum(documents[document], np.repeat(starts, counts))
    end = np.minimum(documents[document + 1], np.repeat(ends, counts))
    pieces = Pieces(order[document], begin - documents[document], end - begin)
    return RowPlan.of(pieces, offsets(counts))
