"""Cutting samples to the longest length allowed, or leaving them out: on arrays, without reading a token."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mftrun.data.mixture import Int64Array
from mftrun.data.rows import offsets, ranges
from mftrun.data.table import COLUMNS
from mftrun.data.token_file import TokenFile


@dataclass(frozen=True)
class OnOverlong:
    """What becomes of over-long samples.

    Attributes:
        cuts: Whether they are cut to the longest length, or left out.
        is_refused: Whether the run stops, after all have been counted.
    """

    cuts: bool
    is_refused: bool = False


ON_OVERLONG = MappingProxyType(
    {
        "error": OnOverlong(cuts=False, is_refused=True),
        "skip": OnOverlong(cuts=False),
        "truncate": OnOverlong(cuts=True),
    }
)


class Limit(NamedTuple):
    """How samples are made to fit.

    Attributes:
        max_length: Longest sample in tokens; None where rows take parts of samples.
        overlong: What becomes of a longer one.
    """

    max_length: int | None
    overlong: OnOverlong


@dataclass(frozen=True, eq=False)
class Fitted:
    """Samples of one token file that are kept (n of them), and what became of the others.

    Attributes:
        columns: The columns of a `SampleTable`, but for `task`, `source` and `span_ptr`; with `span_counts`,
            int64[n], in place of the last. `origin_file` counts the token file's own files.
        num_chosen: Samples before the limit was applied.
        overlong: int64[...], samples longer than the limit, whatever became of them.
        truncated: How many of the kept samples were cut.
        without_target: int64[...], samples left out because no target is within the limit.
    """

    columns: dict[str, npt.NDArray[Any]]
    num_chosen: int
    overlong: Int64Array
    truncated: int
    without_target: Int64Array

    @property
    def num_samples(self) -> int:
        """Samples kept, n."""
        return len(self.columns["lengths"])


def fit(file: TokenFile, chosen: Int64Array, limit: Limit) -> Fitted:
    """Applies the limit to some samples of a token file.

    Args:
        file: The token file.
        chosen: int64[...], the samples.
        limit: The longest length, and the policy.
    """
    lengths = np.asarray(file.lengths)[chosen].astype(np.int64)
    longest = np.iinfo(np.int64).max if limit.max_length is None else limit.max_length
    is_overlong = lengths > longest
    num_chosen, overlong = len(chosen), chosen[is_overlong]
    if not limit.overlong.cuts:
        chosen, lengths = chosen[~is_overlong], lengths[~is_overlong]
    cut = np.minimum(lengths, longest)
    spans = _spans(file, chosen, cut)
    has_target = spans["span_counts"] > 0
    of_kept = np.repeat(has_target, spans["span_counts"])
    kept = chosen[has_target]
    columns: dict[str, npt.NDArray[Any]] = {
        "first": np.asarray(file.first)[kept],
        "lengths": cut[has_target],
        "target_weights": spans["target_weights"][has_target],
        "span_counts": spans["span_counts"][has_target],
        **{name: spans[name][of_kept] for name in ("span_start", "span_length", "span_weight")},
        "origin_file": np.asarray(file.origin_file)[kept],
        "origin_line": np.asarray(file.origin_line)[kept],
    }
    truncated = int((lengths > cut)[has_target].sum())
    return Fitted(columns, num_chosen, overlong, truncated, without_target=chosen[~has_target])


def _spans(file: TokenFile, chosen: Int64Array, lengths: Int64Array) -> dict[str, npt.NDArray[Any]]:
    """The spans of some samples as far as their first `lengths` tokens go."""
    pointer = np.asarray(file.span_ptr)
    counts = pointer[chosen + 1] - pointer[chosen]
    here = ranges(pointer[chosen], counts)
    owner = np.repeat(np.arange(len(chosen)), counts)
    start = np.asarray(file.span_start)[here]
    length = np.minimum(np.asarray(file.span_length)[here], lengths[owner] - start)
    inside = length > 0
    owner, start, length = owner[inside], start[inside], length[inside]
    weight = np.asarray(file.span_weight)[here][inside]
    return {
        "span_counts": np.bincount(owner, minlength=len(chosen)),
        "target_weights": np.bincount(owner, length * weight.astype(np.float64), minlength=len(chosen)),
        "span_start": start,
        "span_length": length.astype(np.int32),
        "span_weight": weight,
    }


def joined(fitted: list[Fitted], task: list[int], source: list[int], files: list[int]) -> dict[str, Any]:
    """The columns of a table of all the samples of several token files.

    Args:
        fitted: The samples of each.
        task: The task of each.
        source: The number of each in the table's list of token files.
        files: The number of each's first origin file in the table's list of files.
    """
    if not fitted:
        return {name: np.zeros(int(name == "span_ptr"), np.int64) for name in COLUMNS}
    columns = {name: np.concatenate([one.columns[name] for one in fitted]) for name in fitted[0].columns}
    sizes = [one.num_samples for one in fitted]
    columns["task"], columns["source"] = np.repeat(task, sizes), np.repeat(source, sizes)
    columns["origin_file"] = columns["origin_file"] + np.repeat(files, sizes)
    columns["span_ptr"] = offsets(columns.pop("span_counts"))
    return columns
