"""Rows: what the model sees as one sequence, made of one sample, of several, or of pieces of them."""

from mftrun.data.rows.base import Pieces, RowBuilder, RowPlan, offsets, ranges
from mftrun.data.rows.concat import Concat
from mftrun.data.rows.layout import Joined, Layout, Padded
from mftrun.data.rows.packing import Packing, SplitPacking
from mftrun.data.rows.padding import Padding
from mftrun.data.rows.padding_free import PaddingFree

__all__ = [
    "Concat",
    "Joined",
    "Layout",
    "Packing",
    "Padded",
    "Padding",
    "PaddingFree",
    "Pieces",
    "RowBuilder",
    "RowPlan",
    "SplitPacking",
    "offsets",
    "ranges",
]
