from __future__ import annotations

import numpy as np
import pytest

from mftrun.data.split import TRAIN, UNUSED, VALID, ValidationSize, split
from mftrun.errors import ConfigError

SIZE = ValidationSize(0.1, 1, 50)


def counts(roles):
    return [int((roles == role).sum()) for role in (UNUSED, TRAIN, VALID)]


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
    assert counts(roles) == [0, count - held_out, held_out]


def test_split_depends_on_seed_and_task_and_nothing_else():
    first = split(1000, "t", 0, SIZE)
    assert np.array_equal(first, split(1000, "t", 0, SIZE))
    assert not np.array_equal(first, split(1000, "t", 1, SIZE))
    assert not np.array_equal(first, split(1000, "u", 0, SIZE))


def test_split_is_spread_over_the_file():
    held_out = np.flatnonzero(split(10_000, "t", 0, ValidationSize(0.1, 1, 10_000)) == VALID)
    assert np.bincount(held_out // 1000, minlength=10).min() > 50


def test_max_samples_takes_a_random_subset_and_keeps_the_validation_samples():
    whole, part = (
        split(400, "t", 0, ValidationSize(0.1, 20, 20)),
        split(400, "t", 0, ValidationSize(0.1, 20, 20), 100),
    )
    assert counts(part) == [300, 80, 20]
    assert np.array_equal(whole == VALID, part == VALID)
    assert np.flatnonzero(part != UNUSED).max() > 200
    assert counts(split(10, "t", 0, SIZE, 99)) == [0, 9, 1]


@pytest.mark.parametrize(
    ("count", "size", "limit"), [(1, SIZE, None), (30, ValidationSize(0.1, 30, 50), None), (9, SIZE, 1)]
)
def test_too_few_samples_say_how_many_there_are_and_what_to_set(count, size, limit):
    with pytest.raises(ConfigError) as caught:
        split(count, "chat", 0, size, limit)
    used = min(count, limit or count)
    assert str(caught.value).startswith(f"data.tasks.chat: {used} sample")
    for key in ("data.tasks.chat.valid_path", "data.valid_min", "data.valid_fraction"):
        assert key in str(caught.value)


def test_one_sample_without_validation_is_enough():
    assert counts(split(1, "t", 0, ValidationSize(0.0, 1, 9))) == [0, 1, 0]
