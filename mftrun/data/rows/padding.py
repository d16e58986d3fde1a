"""Padding: one sample a row, rows of like length together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mftrun.data.mixture import Int64Array, permutation
from mftrun.data.rows.base import Pieces, RowPlan, WholeSamples
from mftrun.errors import ConfigError


@dataclass(frozen=True)
class Padding(WholeSamples):
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

    def place(self, pieces: Pieces, max_length: int) -> RowPlan:
        """Give every piece a row of its own, in their order."""
        return RowPlan.of(pieces, np.arange(len(pieces.sizes) + 1))

    def arrange(self, lengths: Int64Array, global_batch_size: int, rng: np.random.Generator) -> Int64Array:
        """Sort by length within runs of `group_factor` batches, then shuffle the batches.

        The rows left over for a smaller last batch are the last of the sampler's order, thus of any length.
        """
        rows = np.arange(len(lengths))
        whole = len(rows) - len(rows) % global_batch_size
        group = rows[:whole] // (self.group_factor * global_batch_size)
        batches = np.lexsort((lengths[:whole], group)).reshape(-1, global_batch_size)
        return np.concatenate([batches[permutation(len(batches), rng)].ravel(), rows[whole:]])
