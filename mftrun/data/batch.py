"""Batches: rows of a plan as the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mftrun.data.mixture import Int64Array
from mftrun.data.rows import Layout, Pieces, RowPlan, offsets, ranges
from mftrun.data.sample import Origin


class Samples(Protocol):
    """What a run trains on, or is validated on: S tokenized samples.

    Targets are P spans of consecutive target tokens of one weight, in the order of the samples and within
    them. A target of weight w counts as w tokens; the first token of a sample is never one.
    """

    @property
    def tasks(self) -> Sequence[str]:
        """Task names; `task` indexes them."""
        ...

    @property
    def task(self) -> npt.NDArray[Any]:
        """Task of each sample, int32[S]."""
        ...

    @property
    def lengths(self) -> Int64Array:
        """Tokens of each sample, int64[S], 1 or more."""
        ...

    @property
    def span_ptr(self) -> Int64Array:
        """Sample s has the spans `span_ptr[s]:span_ptr[s + 1]`, int64[S+1]."""
        ...

    @property
    def span_start(self) -> npt.NDArray[Any]:
        """First token of each span, counted from its sample's, int32[P], 1 or more."""
        ...

    @property
    def span_length(self) -> npt.NDArray[Any]:
        """Tokens of each span, int32[P]."""
        ...

    @property
    def span_weight(self) -> npt.NDArray[Any]:
        """Weight of each token of a span, float32[P]."""
        ...

    @property
    def target_weights(self) -> npt.NDArray[np.float64]:
        """Summed weight of each sample's targets, float64[S]."""
        ...

    def read(self, sample: Int64Array, start: Int64Array, size: Int64Array) -> npt.NDArray[np.int32]:
        """Return the tokens of G pieces, one after the other: int32[sum(size)].

        Args:
            sample: int64[G].
            start: int64[G], the first token of each, counted from its sample's.
            size: int64[G], tokens of each.
        """
        ...

    def origin(self, sample: int) -> Origin:
        """Return the place a sample came from."""
        ...


@dataclass(frozen=True, eq=False)
class Batch:
    """One micro-batch, of T target tokens. Tensors are int64 where nothing else is said.

    Attributes:
        input_ids: [rows, length].
        position_ids: [rows, length], from 0 in every segment.
        predict_from: [T], index into the flattened rows x length of the position before each target.
        target_ids: [T], the token to predict there.
        target_weights: float32 [T], how many tokens the target counts as; above 0.
        task_ids: [T], its task.
        sample_ids: [T], its sample, an index into the `Samples`: for reports. A sample that is repeated or
            cut may stand in a micro-batch, and in a global batch, more than once.
        piece_ids: [T], its piece (segment), counted within the micro-batch: what losses per sample average.
        sample_sizes: float64 [T], summed weight of the targets of that piece.
        row_lengths: [rows], tokens of each row; the rest of it is padding.
        num_tokens: tokens that are not padding.
    """

    input_ids: Tensor
    position_ids: Tensor
    predict_from: Tensor
    target_ids: Tensor
    target_weights: Tensor
    task_ids: Tensor
    sample_ids: Tensor
    piece_ids: Tensor
    sample_sizes: Tensor
    row_lengths: Tensor
    num_tokens: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin(self) -> Batch:
        """Return the batch in page-locked memory, from which `to` can copy without blocking."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        changed: dict[str, Any] = {k: change(v) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)


def collate(samples: Samples, plan: RowPlan, rows: Int64Array, pad_id: int, layout: Layout) -> Batch:
    """Return the micro-batch of `rows` (indices into `plan`), laid out as `layout` says.

    Without rows the batch is one row of one padding token and no target: a rank that has run out of rows
    still runs its forward and backward, as distributed training requires of every rank.
    """
    pieces, counts = plan.pieces(rows)
    place = _places(pieces, counts, layout.starts(plan.lengths[rows]))
    found, columns = layout.shape(plan.lengths[rows])
    shape = (max(1, found), max(1, columns))
    into = ranges(place, pieces.sizes)

    input_ids = np.full(shape, pad_id, np.int64)
    input_ids.reshape(-1)[into] = samples.read(*pieces)
    position_ids = _padding_positions(place, shape)
    position_ids.reshape(-1)[into] = ranges(np.zeros_like(pieces.sizes), pieces.sizes)

    spans = _targets(samples, pieces)
    predict_from = ranges((place - pieces.starts)[spans.piece] + spans.start - 1, spans.length)
    piece = np.repeat(spans.piece, spans.length)
    sizes = _piece_weights(spans, len(pieces.sizes))
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(position_ids),
        predict_from=_tensor(predict_from),
        target_ids=_tensor(input_ids.reshape(-1)[predict_from + 1]),
        target_weights=_tensor(np.repeat(spans.weight, spans.length), np.float32),
        task_ids=_tensor(samples.task[pieces.samples][piece]),
        sample_ids=_tensor(pieces.samples[piece]),
        piece_ids=_tensor(piece),
        sample_sizes=_tensor(sizes[piece], np.float64),
        row_lengths=_tensor(_sums(place // shape[1], pieces.sizes, shape[0])),
        num_tokens=len(into),
    )


def window_counts(
    samples: Samples, plan: RowPlan, window: Sequence[Int64Array], num_tasks: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return weighted target tokens and samples of each task, float64[K] each, in one rank's window.

    A sample, or a piece of one that is cut, counts once where it has targets and not at all where it has
    none. No token is read, so this is known before the first batch is.
    """
    pieces, _ = plan.pieces(np.concatenate([np.zeros(0, np.int64), *window]))
    weights = _piece_weights(_targets(samples, pieces), len(pieces.sizes))
    task = samples.task[pieces.samples]
    return _sums(task, weights, num_tasks), _sums(task, weights > 0, num_tasks)


class _Spans(NamedTuple):
    """Runs of targets in pieces."""

    piece: Int64Array
    start: Int64Array  # in the sample
    length: Int64Array
    weight: npt.NDArray[np.float32]


def _targets(samples: Samples, pieces: Pieces) -> _Spans:
    """Return the targets in the pieces: what they hold of their samples' spans, but never their first token.

    Nothing stands before that token to predict it from. Where a sample goes on in another row, its piece
    there begins with the last token of the one before, in which that token is a target.
    """
    first = samples.span_ptr[pieces.samples]
    counts = samples.span_ptr[pieces.samples + 1] - first
    chosen = ranges(first, counts)
    piece = np.repeat(np.arange(len(counts)), counts)
    span = samples.span_start[chosen].astype(np.int64)
    assert (span > 0).all(), "nothing stands before the first token of a sample to predict it from"
    start = np.maximum(span, pieces.starts[piece] + 1)
    stop = np.minimum(span + samples.span_length[chosen], (pieces.starts + pieces.sizes)[piece])
    weight = samples.span_weight[chosen]
    kept = (stop > start) & (weight > 0)
    return _Spans(piece[kept], start[kept], (stop - start)[kept], weight[kept])


def _piece_weights(spans: _Spans, num_pieces: int) -> npt.NDArray[np.float64]:
    """Return the summed weight of the targets in each piece, float64[pieces]."""
    return _sums(spans.piece, spans.length * spans.weight.astype(np.float64), num_pieces)


def _sums(owner: npt.NDArray[Any], values: npt.NDArray[Any], size: int) -> npt.NDArray[np.float64]:
    """Return float64[size]: the sum of the values of each owner."""
    sums: npt.NDArray[Any] = np.bincount(owner, values, minlength=size)
    return sums.astype(np.float64, copy=False)


def _places(pieces: Pieces, counts: Int64Array, row_starts: Int64Array) -> Int64Array:
    """Return int64[pieces]: where each starts in the flattened tensor."""
    start = offsets(pieces.sizes)
    first = offsets(counts)[:-1]
    return start[:-1] + np.repeat(row_starts - start[first], counts)


def _padding_positions(place: Int64Array, shape: tuple[int, int]) -> Int64Array:
    """Return int64[rows, length] positions that count on from each row's last segment.

    Padding never starts again at 0: that would be one segment more, harmless to the others, but it would
    make rows of a single sample look packed, when they need nothing beyond plain causal attention.
    """
    last_start = np.zeros(shape[0], np.int64)
    # Segments come in order: the last one of a row stays.
    last_start[place // shape[1]] = place % shape[1]
    return np.arange(shape[1]) - last_start[:, None]


def _tensor(values: npt.NDArray[Any], dtype: npt.DTypeLike = np.int64) -> Tensor:
    return torch.from_numpy(values.astype(dtype, copy=False))
