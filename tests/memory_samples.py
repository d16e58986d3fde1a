"""Tokenized samples in memory, for tests of everything that comes after tokenizing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np

from mftrun.data.rows import offsets, ranges
from mftrun.data.sample import Origin

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class MemorySamples:
    """What `mftrun.data.batch.Samples` asks for. Sample s has `tokens[starts[s]:starts[s + 1]]`."""

    tokens: Array  # int32[N]
    weights: Array  # float32[N], 0 where there is no target
    starts: Array  # int64[S + 1]
    task: Array  # int32[S]
    tasks: Sequence[str] = ("a", "b", "c", "d")

    @cached_property
    def lengths(self) -> Array:
        return np.diff(self.starts)

    @cached_property
    def _spans(self) -> list[list[tuple[int, int, float]]]:
        pairs = zip(self.starts, self.starts[1:], strict=False)
        return [spans_of(self.weights[start:stop]) for start, stop in pairs]

    @cached_property
    def span_ptr(self) -> Array:
        return offsets(np.array([len(spans) for spans in self._spans], np.int64))

    @cached_property
    def span_start(self) -> Array:
        return np.array([start for spans in self._spans for start, _, _ in spans], np.int32)

    @cached_property
    def span_length(self) -> Array:
        return np.array([length for spans in self._spans for _, length, _ in spans], np.int32)

    @cached_property
    def span_weight(self) -> Array:
        return np.array([weight for spans in self._spans for _, _, weight in spans], np.float32)

    @cached_property
    def target_weights(self) -> Array:
        pairs = zip(self.starts, self.starts[1:], strict=False)
        return np.array([self.weights[start:stop].sum(dtype=np.float64) for start, stop in pairs])

    def read(self, sample: Array, start: Array, size: Array) -> Array:
        return self.tokens[ranges(self.starts[sample] + start, size)]

    def origin(self, sample: int) -> Origin:
        return Origin("made", int(sample) + 1)


def spans_of(weights: Array) -> list[tuple[int, int, float]]:
    """Runs of equal weight above 0: start, length, weight."""
    spans, at = [], 0
    for weight, run in groupby(weights.tolist()):
        length = len(list(run))
        if weight:
            spans.append((at, length, weight))
        at += length
    return spans


def joined(samples: Sequence[tuple[Sequence[int], Sequence[float], int]], **more: Any) -> MemorySamples:
    """Samples from (tokens, weight of each token, task)."""
    return MemorySamples(
        tokens=np.concatenate([np.zeros(0, np.int32), *(np.array(ids, np.int32) for ids, _, _ in samples)]),
        weights=np.concatenate([np.zeros(0, np.float32), *(np.array(w, np.float32) for _, w, _ in samples)]),
        starts=offsets(np.array([len(ids) for ids, _, _ in samples], np.int64)),
        task=np.array([task for _, _, task in samples], np.int32),
        **more,
    )
