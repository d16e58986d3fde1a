"""Time making rows and collating: `python benchmarks/packing.py`.

Prints, for several shapes of data, the seconds to pack an epoch and how full the rows are; then the same for
the other rows and the seconds of each sampler; then the time to collate one packed micro-batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mftrun.data.batch import collate, window_counts
from mftrun.data.mixture import Proportional
from mftrun.data.plan import Planner
from mftrun.data.rows import Concat, Packing, Padded, Padding, PaddingFree, offsets, ranges
from mftrun.data.sample import Origin
from mftrun.data.samplers import Epochs, RoundRobin, Temperature, Weights

ROW = "{:<28}{:>9}{:>8}{:>10}{:>10}{:>12}"


@dataclass(frozen=True)
class MemorySamples:
    """Samples in memory: random tokens, four spans of targets in each sample, half of it in all."""

    tokens: npt.NDArray[Any]
    offsets: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    task: npt.NDArray[Any]
    span_ptr: npt.NDArray[np.int64]
    span_start: npt.NDArray[Any]
    span_length: npt.NDArray[Any]
    span_weight: npt.NDArray[Any]
    target_weights: npt.NDArray[np.float64]
    tasks: tuple[str, ...] = ("a", "b", "c", "d", "e", "f")

    def read(
        self, sample: npt.NDArray[np.int64], start: npt.NDArray[np.int64], size: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int32]:
        """Return the tokens of pieces."""
        found: npt.NDArray[np.int32] = self.tokens[ranges(self.offsets[sample] + start, size)]
        return found

    def origin(self, sample: int) -> Origin:
        """Return no place in particular."""
        return Origin("made", sample)


def uniform(rng: np.random.Generator, size: int, longest: int) -> npt.NDArray[np.int64]:
    return rng.integers(1, longest + 1, size)


def lognormal(rng: np.random.Generator, size: int, longest: int) -> npt.NDArray[np.int64]:
    return np.clip(rng.lognormal(6.0, 1.0, size).astype(np.int64), 8, longest)


def real_like(rng: np.random.Generator, size: int, longest: int) -> npt.NDArray[np.int64]:
    """Six tasks of code and chat: medians from 80 to 900 tokens, a long tail, some cut at the limit."""
    medians = np.array([80, 150, 250, 400, 650, 900])[rng.integers(0, 6, size)]
    return np.clip((medians * rng.lognormal(0.0, 0.7, size)).astype(np.int64), 8, longest)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the best time of several."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def make_samples(
    rng: np.random.Generator, lengths: npt.NDArray[np.int64], vocabulary: int = 32_000
) -> MemorySamples:
    starts, size = offsets(lengths), len(lengths)
    each = lengths // 8  # of the four spans; the first token of a sample stays out of them
    span_start = 1 + each[:, None] * np.array([0, 2, 4, 6])
    return MemorySamples(
        tokens=rng.integers(0, vocabulary, starts[-1]).astype(np.int32),
        offsets=starts,
        lengths=lengths,
        task=rng.integers(0, 6, size).astype(np.int32),
        span_ptr=4 * np.arange(size + 1),
        span_start=span_start.ravel().astype(np.int32),
        span_length=np.repeat(each, 4).astype(np.int32),
        span_weight=np.ones(4 * size, np.float32),
        target_weights=4.0 * each,
    )


def packing_table(rng: np.random.Generator) -> None:
    print(ROW.format("lengths", "samples", "row", "pack s", "epoch s", "fill %"))
    for make in (uniform, lognormal, real_like):
        for size, longest in ((100_000, 4096), (100_000, 1024), (100_000, 32_768), (1_000_000, 4096)):
            lengths = make(rng, size, longest)
            task = np.zeros(size, np.int32)
            planner = Planner(lengths, task, Proportional(), Packing(), 0, 64, longest)
            order = Proportional().order(task, 0, 0)
            pack = seconds(lambda n=lengths, o=order, m=longest: Packing().plan(n, o, m), 3)
            epoch = seconds(lambda p=planner: p.epoch(0), 1)
            rows = planner.epoch(0).rows
            fill = 100 * lengths.sum() / (rows.num_rows * longest)
            print(ROW.format(make.__name__, size, longest, f"{pack:.3f}", f"{epoch:.3f}", f"{fill:.2f}"))


def rows_table(rng: np.random.Generator) -> None:
    print()
    print(ROW.format("other rows (real_like)", "samples", "row", "plan s", "epoch s", "fill %"))
    lengths, task = real_like(rng, 1_000_000, 4096), np.zeros(1_000_000, np.int32)
    order = Proportional().order(task, 0, 0)
    for rows in (Padding(), Concat(), PaddingFree()):
        plan = seconds(lambda r=rows: r.plan(lengths, order, 4096), 2)
        planner = Planner(lengths, task, Proportional(), rows, 0, 64, 4096)
        epoch = seconds(lambda p=planner: p.epoch(0), 1)
        made = planner.epoch(0).rows
        fill = 100 * made.sizes.sum() / (made.num_rows * 4096)
        name = type(rows).__name__
        print(ROW.format(name, len(lengths), 4096, f"{plan:.3f}", f"{epoch:.3f}", f"{fill:.2f}"))


def sampler_table(rng: np.random.Generator) -> None:
    print()
    print(ROW.format("samplers", "samples", "tasks", "epoch s", "", ""))
    tasks = [f"task{number}" for number in range(12)]
    task = rng.choice(12, 1_000_000, p=0.5 ** np.arange(1, 13) / (1 - 0.5**12)).astype(np.int32)
    for sampler in (Proportional(), Temperature(), Weights(tasks), Epochs(tasks), RoundRobin()):
        work = seconds(lambda s=sampler: s.order(task, 0, 3), 2)
        print(ROW.format(type(sampler).__name__, len(task), 12, f"{work:.3f}", "", ""))


def collate_table(rng: np.random.Generator) -> None:
    print()
    print(ROW.format("one micro-batch (real_like)", "rows", "row", "collate", "counts", "us/1k token"))
    lengths = real_like(rng, 20_000, 4096)
    for longest, size in ((1024, 8), (4096, 1), (4096, 8), (4096, 32)):
        samples = make_samples(rng, np.minimum(lengths, longest))
        planner = Planner(samples.lengths, samples.task, Proportional(), Packing(), 0, size, longest)
        rows = planner.epoch(0).rows
        windows = [planner.epoch(0).window(i, 0, 1, size) for i in range(20)]
        work = seconds(lambda s=samples, r=rows, w=windows: [collate(s, r, x[0], 0, Padded()) for x in w], 5)
        count = seconds(lambda s=samples, r=rows, w=windows: [window_counts(s, r, x, 6) for x in w], 5)
        tokens = sum(rows.lengths[x[0]].sum() for x in windows)
        each = f"{1e6 * work / (tokens / 1000):.1f}"
        times = f"{1e3 * work / 20:.3f} ms", f"{1e3 * count / 20:.3f} ms"
        print(ROW.format("", size, longest, *times, each))


def main() -> None:
    rng = np.random.default_rng(0)
    packing_table(rng)
    rows_table(rng)
    sampler_table(rng)
    collate_table(rng)


if __name__ == "__main__":
    main()
