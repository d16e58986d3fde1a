"""Batches: rows of a plan as the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mftrun.data.mixture import Int64Array
from mftrun.data.rows import RowPlan, offsets, ranges


class Tokens(Protocol):
    """What is read of a token store of S samples and N tokens."""

    @property
    def tokens(self) -> npt.NDArray[Any]:
        """Token ids, int[N]."""
        ...

    @property
    def targets(self) -> npt.NDArray[Any]:
        """Which tokens are predicted in training, bool[N]; never the first of a sample."""
        ...

    @property
    def offsets(self) -> npt.NDArray[Any]:
        """Sample s is `tokens[offsets[s]:offsets[s + 1]]`, int64[S+1]."""
        ...

    @property
    def task(self) -> npt.NDArray[Any]:
        """Task of each sample, int[S]."""
        ...

    @property
    def target_counts(self) -> npt.NDArray[Any]:
        """Target tokens of each sample, int64[S]."""
        ...


@dataclass(frozen=True, eq=False)
class Batch:
    """One micro-batch, of T target tokens. All tensors are int64.

    Attributes:
        input_ids: [rows, length].
        position_ids: [rows, length], from 0 in every segment.
        predict_from: [T], index into the flattened rows x length of the position before each target.
        target_ids: [T], the token to predict there.
        task_ids: [T], its task.
        sample_ids: [T], its sample, an index into the token store.
        sample_sizes: [T], target tokens in that sample.
        num_tokens: tokens that are not padding.
    """

    input_ids: Tensor
    position_ids: Tensor
    predict_from: Tensor
    target_ids: Tensor
    task_ids: Tensor
    sample_ids: Tensor
    sample_sizes: Tensor
    num_tokens: int

    @property
    def num_targets(self) -> int:
        """Number of target tokens T, known without asking the device."""
        return self.target_ids.shape[0]

    @property
    def num_padding(self) -> int:
        """Number of padding tokens."""
        return self.input_ids.numel() - self.num_tokens

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


def collate(store: Tokens, plan: RowPlan, rows: Int64Array, pad_id: int) -> Batch:
    """Return the micro-batch of `rows` (indices into `plan`), padded to the longest of them.

    Without rows the batch is one row of one padding token and no target: a rank that has run out of rows
    still runs its forward and backward, as distributed training requires of every rank.
    """
    segments = _segments(store, plan, rows)
    shape = (max(1, len(rows)), int(plan.lengths[rows].max(initial=1)))
    into = ranges(segments.row * shape[1] + segments.column, segments.size)
    source = ranges(segments.source, segments.size)
    position = ranges(np.zeros_like(segments.size), segments.size)

    input_ids = np.full(shape, pad_id, np.int64)
    tokens = store.tokens[source]
    input_ids.reshape(-1)[into] = tokens
    position_ids = _padding_positions(segments, shape)
    position_ids.reshape(-1)[into] = position

    chosen = np.flatnonzero(store.targets[source])
    assert position[chosen].all(), "nothing stands before the first token of a segment to predict it from"
    owner = np.repeat(np.arange(len(segments.size)), segments.size)[chosen]
    target_counts = np.bincount(owner, minlength=len(segments.size))
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(position_ids),
        predict_from=_tensor(into[chosen] - 1),
        target_ids=_tensor(tokens[chosen]),
        task_ids=_tensor(store.task[segments.sample][owner]),
        sample_ids=_tensor(segments.sample[owner]),
        sample_sizes=_tensor(target_counts[owner]),
        num_tokens=len(source),
    )


def window_counts(
    store: Tokens, plan: RowPlan, window: Sequence[Int64Array], num_tasks: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return target tokens and samples of each task, float64[K] each, in one rank's window.

    A sample without targets does not count. No token is read, so this is known before the first batch is.
    """
    samples, _ = plan.segments(np.concatenate([np.zeros(0, np.int64), *window]))
    task, targets = store.task[samples], store.target_counts[samples]
    tokens = np.zeros(num_tasks)
    np.add.at(tokens, task, targets)
    has_targets = np.zeros(num_tasks)
    np.add.at(has_targets, task, targets > 0)
    return tokens, has_targets


@dataclass(frozen=True, eq=False)
class _Segments:
    """The segments of a micro-batch, int64[segments] each: where they come from and where they go."""

    sample: Int64Array
    source: Int64Array  # first token in the store
    size: Int64Array  # tokens
    row: Int64Array
    column: Int64Array  # of the first token


def _segments(store: Tokens, plan: RowPlan, rows: Int64Array) -> _Segments:
    sample, counts = plan.segments(rows)
    source = store.offsets[sample].astype(np.int64)
    size = store.offsets[sample + 1] - source
    row = np.repeat(np.arange(len(rows)), counts)
    start = offsets(size)[:-1]
    row_start = offsets(plan.lengths[rows])[:-1]
    return _Segments(sample, source, size, row, start - row_start[row])


def _padding_positions(segments: _Segments, shape: tuple[int, int]) -> Int64Array:
    """Return int64[rows, length] positions that count on from each row's last segment.

    Padding never starts again at 0: that would be one segment more, harmless to the others, but it would
    make rows of a single sample look packed, when they need nothing beyond plain causal attention.
    """
    last_start = np.zeros(shape[0], np.int64)
    last_start[segments.row] = segments.column  # segments come in order: the last one of a row stays
    return np.arange(shape[1]) - last_start[:, None]


def _tensor(values: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64, copy=False))
