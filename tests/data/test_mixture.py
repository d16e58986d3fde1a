import numpy as np
import pytest

from mftrun.data.mixture import Proportional, generator, permutation


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_every_sample_comes_exactly_once(size: int) -> None:
    order = Proportional().order(np.zeros(size, np.int32), seed=3, epoch=1)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(size))


def test_order_is_a_function_of_seed_and_epoch() -> None:
    task = np.zeros(100, np.int32)
    order = Proportional().order
    assert np.array_equal(order(task, 1, 2), order(task, 1, 2))
    others = [order(task, 1, 3), order(task, 2, 2), order(task, 2, 1)]
    assert not any(np.array_equal(order(task, 1, 2), other) for other in others)


def test_every_task_is_spread_over_the_epoch() -> None:
    """A task stored as one block must not stay one."""
    task = np.repeat(np.arange(4, dtype=np.int32), 500)
    visited = task[Proportional().order(task, 0, 0)]
    shares = np.array([np.bincount(part, minlength=4) / len(part) for part in np.split(visited, 4)])
    assert abs(shares - 0.25).max() < 0.08


def test_permutation_is_pinned() -> None:
    """Data orders of old checkpoints: these numbers may never change."""
    assert permutation(8, generator(0, 0, 1)).tolist() == [7, 6, 4, 5, 3, 1, 0, 2]


def test_streams_of_one_epoch_are_independent() -> None:
    first, second = (permutation(50, generator(0, 0, stream)) for stream in (1, 2))
    assert not np.array_equal(first, second)
