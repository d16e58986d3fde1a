"""Dynamic weight average, by hand."""

import math

import pytest
from weighting_courses import look, look_at_all

from mftrun.losses.weightings import Dwa


def soft(values, temperature):
    powers = [math.exp(value / temperature) for value in values]
    return pytest.approx([power / sum(powers) for power in powers])


def test_by_hand():
    running = Dwa().build("ab")
    assert look(running, [4, 2]).tolist() == [0.5, 0.5]
    assert look(running, [2, 2], 1).tolist() == soft([0.5, 1], 2)
    assert running.diagnostics()["loss_ratio"].tolist() == [0.5, 1]
    assert look(running, [2, 1], 2).tolist() == soft([1, 0.5], 2)


def test_temperature():
    assert look_at_all(Dwa(temperature=0.1).build("ab"), [[4, 2], [2, 2]])[-1].tolist() == soft([0.5, 1], 0.1)


def test_means_over_a_window():
    running = Dwa(window=2).build("ab")
    course = [[9, 9], [4, 3], [2, 1], [2, 2], [1, 4]]
    weights = look_at_all(running, course)
    assert weights[2].tolist() == [0.5, 0.5]  # three of the four that are needed
    assert weights[3].tolist() == soft([4 / 13, 3 / 12], 2)
    assert weights[4].tolist() == soft([3 / 6, 6 / 4], 2)


def test_tasks_are_followed_on_their_own():
    running = Dwa().build("abc")
    look(running, [4, 3, math.nan])
    weights = look(running, [2, math.nan, 5], 1)
    assert weights.tolist() == pytest.approx([1 / 3] * 3)  # the only one that is known has its share
    weights = look(running, [math.nan, 3, math.nan], 2)
    assert weights[2].item() == pytest.approx(1 / 3)
    assert (weights[:2] * 1.5).tolist() == soft([0.5, 1], 2)
