"""The newest numbers of each task and their slopes, against slow and plain computations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mftrun.losses.weightings.history import History, Recent

LOSS = st.one_of(st.just(math.nan), st.floats(0.01, 20))


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def fill(history, rows, steps=None):
    for step, row in zip(steps or range(len(rows)), rows, strict=True):
        history.add(step, tensor(row), ~tensor(row).isnan())


def slow_slopes(rows, steps, window):
    """numpy's polynomial fit through each task's own last points."""
    slopes = []
    for column in zip(*rows, strict=True):
        points = [(step, value) for step, value in zip(steps, column, strict=True) if not math.isnan(value)]
        x, y = np.array(points[-window:]).reshape(-1, 2).T
        slopes.append(np.polyfit(x - x.mean(), y, 1)[0] if len(x) > 1 else math.nan)
    return slopes


@given(
    rows=st.integers(1, 4).flatmap(lambda k: st.lists(st.lists(LOSS, min_size=k, max_size=k), min_size=1)),
    window=st.integers(2, 9),
)
@settings(max_examples=80, deadline=None)
def test_slope_goes_through_each_tasks_own_newest_points(rows, window):
    history = History(window, len(rows[0]))
    fill(history, rows)
    expected = slow_slopes(rows, range(len(rows)), window)
    assert history.slopes().tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


def test_a_missing_point_is_left_out_with_its_step():
    history = History(10, 2)
    fill(history, [[0, 0], [2, math.nan], [4, math.nan], [6, 9]])
    assert history.slopes().tolist() == [2, 3]
    assert history.seen.tolist() == [4, 2]


def test_large_steps_lose_no_digits():
    near, far = History(50, 1), History(50, 1)
    rows = [[3 - 1e-6 * index] for index in range(50)]
    fill(near, rows)
    fill(far, rows, range(10**9, 10**9 + 50))
    assert far.slopes().item() == pytest.approx(-1e-6, rel=1e-8)
    assert far.slopes().item() == near.slopes().item()


def test_a_level_course_has_slope_zero_exactly():
    """Weightings divide slopes by their mean size: a trace of rounding would look like a trend."""
    history = History(30, 3)
    fill(history, [[0.1, 0.3, 2.7]] * 23, steps=[step**2 // 3 for step in range(23)])
    assert history.slopes().tolist() == [0, 0, 0]


def test_slope_of_too_few_points_is_unknown():
    history = History(5, 3)
    fill(history, [[1, 2, math.nan], [math.nan, 3, math.nan]])
    assert history.slopes().isnan().tolist() == [True, False, True]
    same_step = History(5, 1)
    fill(same_step, [[1], [2]], steps=[7, 7])
    assert same_step.slopes().isnan().all()


def test_a_task_that_has_ended_keeps_its_slope():
    history = History(3, 2)
    fill(history, [[5, 5], [4, 4], [3, 3]])
    fill(history, [[9, math.nan]] * 20, steps=range(3, 23))
    assert history.slopes().tolist() == [0, -1]


@pytest.mark.parametrize(("then", "now"), [(7, 3), (7, 7), (3, 7)])
@pytest.mark.parametrize("length", [0, 2, 5, 40])
def test_loading_keeps_the_newest_points_that_fit(then, now, length):
    rows = [[float(i), math.nan if i % 3 else float(-i)] for i in range(length)]
    old, new, fresh = History(then, 2), History(now, 2), History(min(then, now), 2)
    fill(old, rows)
    fill(fresh, rows)
    new.load_state_dict(old.state_dict())
    assert new.slopes().tolist() == pytest.approx(fresh.slopes().tolist(), nan_ok=True)
    assert new.seen.tolist() == fresh.seen.tolist()
    # and the next ones find their place
    more = [[float(i), float(i * i)] for i in range(length, length + now)]
    expected = History(now, 2)
    fill(expected, [*rows, *more])
    fill(new, more, range(length, length + now))
    assert new.slopes().tolist() == pytest.approx(expected.slopes().tolist())


def test_newest_first():
    recent = Recent(4, 2)
    for number in range(6):
        recent.add(tensor([number, -number]), torch.tensor([True, number < 3]))
    assert recent.newest(2).tolist() == [[5, -2], [4, -1]]
    assert recent.newest(2, skip=1).tolist() == [[4, -1], [3, 0]]
    assert recent.newest(2, skip=2)[:, 0].tolist() == [3, 2]
    assert recent.newest(2, skip=2)[:, 1].tolist() == pytest.approx([0, math.nan], nan_ok=True)
