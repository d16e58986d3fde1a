"""Time packing and collating: `python benchmarks/packing.py`.

Prints, for several shapes of data, the seconds to pack an epoch and how full the rows are; then the time to
collate one packed micro-batch.
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
from mftrun.data.rows import Packing, offsets

ROW = "{:<28}{:>9}{:>8}{:>10}{:>10}{:>12}"


@dataclass(frozen=True)
class Store:
    """A token store in memory: random tokens, the second half of each sample its target."""

    tokens: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    offsets: npt.NDArray[Any]
    task: npt.NDArray[Any]
    target_counts: npt.NDArray[Any]


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


def make_store(rng: np.random.Generator, lengths: npt.NDArray[np.int64]) -> Store:
    starts = offsets(lengths)
    place = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    targets = place >= np.repeat((lengths + 1) // 2, lengths)
    counts = np.add.reduceat(targets, starts[:-1], dtype=np.int64)
    tokens = rng.integers(0, 32_000, starts[-1]).astype(np.int32)
    return Store(tokens, targets, starts, rng.integers(0, 6, len(lengths)).astype(np.int32), counts)


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


def collate_table(rng: np.random.Generator) -> None:
    print()
    print(ROW.format("one micro-batch (real_like)", "rows", "row", "collate", "counts", "us/1k token"))
    lengths = real_like(rng, 20_000, 4096)
    store = make_store(rng, lengths)
    for longest, size in ((1024, 8), (4096, 1), (4096, 8), (4096, 32)):
        short = np.minimum(lengths, longest)
        store = make_store(rng, short)
        plan = Planner(short, store.task, Proportional(), Packing(), 0, size, longest).epoch(0)
        windows = [plan.window(i, 0, 1, size) for i in range(20)]
        work = seconds(lambda s=store, p=plan, w=windows: [collate(s, p.rows, x[0], 0) for x in w], 5) / 20
        count = (
            seconds(lambda s=store, p=plan, w=windows: [window_counts(s, p.rows, x, 6) for x in w], 5) / 20
        )
        tokens = sum(plan.rows.lengths[x[0]].sum() for x in windows) / 20
        each = f"{1e6 * work / (tokens / 1000):.1f}"
        print(ROW.format("", size, longest, f"{1e3 * work:.3f} ms", f"{1e3 * count:.3f} ms", each))


def main() -> None:
    rng = np.random.default_rng(0)
    packing_table(rng)
    collate_table(rng)


if __name__ == "__main__":
    main()
