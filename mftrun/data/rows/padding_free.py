"""Padding-free rows: whole samples up to a budget of tokens, laid end to end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mftrun.data.mixture import Int64Array
from mftrun.data.rows.base import Pieces, RowPlan, WholeSamples, offsets
from mftrun.data.rows.layout import Joined, Layout
from mftrun.errors import ConfigError


@dataclass(frozen=True)
class PaddingFree(WholeSamples):
    """Whole samples in the sampler's order until the next would exceed the row's budget (next fit).

    The rows of a micro-batch lie end to end in one, so that nothing is ever padded.

    Attributes:
        tokens: budget of a row; None takes `max_length`. A sample above it has a row of its own.
    """

    tokens: int | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise ConfigError("rows.tokens", f"must be 1 or more, or null, not {self.tokens}")

    @property
    def shares_rows(self) -> bool:
        """True."""
        return True

    @property
    def layout(self) -> Layout:
        """Rows end to end."""
        return Joined()

    def place(self, pieces: Pieces, max_length: int) -> RowPlan:
        """Fill rows with the pieces, in their order."""
        return RowPlan.of(pieces, _next_fit(pieces.sizes, self.tokens or max_length))

    def arrange(self, lengths: Int64Array, global_batch_size: int, rng: np.random.Generator) -> Int64Array:
        """Keep the sampler's order."""
        return np.arange(len(lengths))


def _next_fit(sizes: Int64Array, budget: int) -> Int64Array:
    """Return int64[R+1]: row r holds the items `[r]:[r + 1]`, and takes as many as it can."""
    ends = offsets(sizes)
    # Where a row that starts with item i would end, for every i; the rows then are a walk along it.
    after = np.searchsorted(ends, ends[:-1] + budget, side="right") - 1
    following = np.maximum(after, np.arange(1, len(ends))).tolist()
    row_ptr = [0]
    while row_ptr[-1] < len(sizes):
        row_ptr.append(following[row_ptr[-1]])
    return np.array(row_ptr, np.int64)
