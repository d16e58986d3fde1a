from __future__ import annotations

import numpy as np
import pytest

from mftrun.data.split import TRAIN, VALID, ValidationSize, split, subset
from mftrun.errors import ConfigError

SIZE = ValidationSize(0.1, 1, 50)


def counts(roles):
    return [int((roles == role).sum()) for role in (TRAIN, VALID)]


@pytest.mark.parametrize(
    ("count", "size", "held_out"),
    [
        (100, SIZE, 10),
        (5, SIZE, 1),
        (14, SIZE, 1),
        (15, SIZE, 2),
        (10_000, SIZE, 50),
        (100, ValidationSize(0.0, 1, 50), 0),
        (100, ValidationSize(0.001, 0, 50), 0),
        (100, ValidationSize(0.1, 30, 50), 30),
    ],
)
def test_sizes(count, size, held_out):
    roles = split(count, "t", 0, size)
    assert roles.dtype == np.int8
    assert counts(roles) == [count - held_out, held_out]


def test_split_depends_on_seed_and_task_and_nothing_else():
    first = split(1000, "t", 0, SIZE)
    assert np.array_equal(first, split(1000, "t", 0, SIZE))
    assert not np.array_equal(first, split(1000, "t", 1, SIZE))
    assert not np.array_equal(first, split(1000, "u", 0, SIZE))


def test_split_is_spread_over_the_file():
    held_out = np.flatnonzero(split(10_000, "t", 0, ValidationSize(0.1, 1, 10_000)) == VALID)
    assert np.bincount(held_out // 1000, minlength=10).min() > 50


def test_a_subset_is_random_and_depends_on_seed_and_task():
    part = subset(400, "t", 0, 100)
    assert part.sum() == 100
    assert np.flatnonzero(part).max() > 200
    assert np.array_equal(part, subset(400, "t", 0, 100))
    assert not np.array_equal(part, subset(400, "t", 1, 100))
    assert not np.array_equal(part, subset(400, "u", 0, 100))
    assert subset(10, "t", 0, 99).all()
    assert subset(10, "t", 0, None).all()


@pytest.mark.parametrize(("count", "size"), [(1, SIZE), (30, ValidationSize(0.1, 30, 50))])
def test_too_few_samples_say_how_many_there_are_and_what_to_set(count, size):
    with pytest.raises(ConfigError) as caught:
        split(count, "chat", 0, size)
    assert str(caught.value).startswith(f"data.tasks.chat: {count} sample")
    for key in ("data.tasks.chat.valid_path", "data.valid_min", "data.valid_fraction"):
        assert key in str(caught.value)


def test_one_sample_without_validation_is_enough():
    assert counts(split(1, "t", 0, ValidationSize(0.0, 1, 9))) == [1, 0]
