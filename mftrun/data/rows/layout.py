"""Layouts: how the rows of a micro-batch lie in its two-dimensional tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mftrun.data.mixture import Int64Array


class Layout(Protocol):
    """Gives every row of a micro-batch its place. `lengths` int64[rows] are their tokens."""

    @property
    def joins_rows(self) -> bool:
        """Whether the rows of a micro-batch become one, which costs attention with a mask their square."""
        ...

    def shape(self, lengths: Int64Array) -> tuple[int, int]:
        """Return rows and columns of the tensors; 0 x 0 for no rows."""
        ...

    def starts(self, lengths: Int64Array) -> Int64Array:
        """Return int64[rows]: where each row starts in the flattened tensor."""
        ...


@dataclass(frozen=True)
class Padded:
    """Every row is a row of the tensor, padded to the longest of them."""

    @property
    def joins_rows(self) -> bool:
        """False."""
        return False

    def shape(self, lengths: Int64Array) -> tuple[int, int]:
        """Return (rows, longest row)."""
        return len(lengths), int(lengths.max(initial=0))

    def starts(self, lengths: Int64Array) -> Int64Array:
        """Return multiples of the longest row."""
        return np.arange(len(lengths)) * int(lengths.max(initial=0))


@dataclass(frozen=True)
class Joined:
    """All rows one after the other in a single row of the tensor, without any padding."""

    @property
    def joins_rows(self) -> bool:
        """True."""
        return True

    def shape(self, lengths: Int64Array) -> tuple[int, int]:
        """Return (1, tokens of all rows)."""
        return min(1, len(lengths)), int(lengths.sum())

    def starts(self, lengths: Int64Array) -> Int64Array:
        """Return the running sums of the lengths."""
        return np.cumsum(lengths, dtype=np.int64) - lengths
