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
        return self.place(Pieces.whole(lengths, order), max_length)

    def place(self, pieces: Pieces, max_length: int) -> RowPlan:
        """Join the pieces, those of a document that went on from row to row first, and cut them into rows."""
        documents = _rejoined(pieces)
        place = offsets(documents.sizes)
        starts = _row_starts(place, max_length)
        ends = np.minimum(starts + max_length, place[-1])
        return _intersected(documents, place, starts, ends)

    def arrange(self, lengths: Int64Array, global_batch_size: int, rng: np.random.Generator) -> Int64Array:
        """Keep the sampler's order."""
        return np.arange(len(lengths))


def _rejoined(pieces: Pieces) -> Pieces:
    """Return the pieces with every cut between two neighbours undone.

    A piece goes on with its document where it begins with the last token of the one before it. It then has
    another token: that tells it from a document of a single token that is visited twice in a row.
    """
    samples, starts, sizes = pieces
    ends = starts + sizes
    goes_on = np.zeros(len(sizes), bool)
    goes_on[1:] = (samples[1:] == samples[:-1]) & (starts[1:] == ends[:-1] - 1) & (sizes[1:] > 1)
    first = ~goes_on
    last = np.roll(first, -1)  # one document's last piece stands before the first of the next, or at the end
    return Pieces(samples[first], starts[first], ends[last] - starts[first])


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


def _intersected(documents: Pieces, place: Int64Array, starts: Int64Array, ends: Int64Array) -> RowPlan:
    """Return the rows `starts[r]:ends[r]` of the joined tokens, in which document i begins at `place[i]`."""
    first = np.searchsorted(place, starts, side="right") - 1
    counts = np.searchsorted(place, ends, side="left") - first
    document = ranges(first, counts)
    begin = np.maximum(place[document], np.repeat(starts, counts))
    end = np.minimum(place[document + 1], np.repeat(ends, counts))
    start = documents.starts[document] + begin - place[document]
    pieces = Pieces(documents.samples[document], start, end - begin)
    return RowPlan.of(pieces, offsets(counts))
