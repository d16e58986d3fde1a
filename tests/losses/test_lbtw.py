"""Loss-balanced task weighting, by hand."""

import math

import pytest
import torch
from weighting_courses import look

from mftrun.losses.weightings import Lbtw


def test_by_hand():
    running = Lbtw().build("abc")
    assert look(running, [4, 2, 1]).tolist() == [1, 1, 1]
    assert look(running, [1, 1, 4], 1).tolist() == pytest.approx([0.5, math.sqrt(0.5), 2])
    assert look(running, [4, 2, 1], 2).tolist() == [1, 1, 1]  # relative to the first, whatever was between
    assert running.diagnostics()["loss_ratio"].tolist() == [1, 1, 1]


def test_alpha():
    running = Lbtw(alpha=2).build("ab")
    look(running, [4, 2])
    assert look(running, [2, 1.5], 1).tolist() == pytest.approx([0.25, 0.5625])
    equal = Lbtw(alpha=0).build("ab")
    look(equal, [4, 2])
    assert look(equal, [2, 0], 1).tolist() == [1, 1]


def test_a_task_that_comes_late_counts_from_then_and_one_that_ends_keeps_its_weight():
    running = Lbtw(alpha=1).build("abc")
    assert look(running, [4, math.nan, math.nan]).tolist() == [1, 1, 1]
    assert look(running, [2, 3, math.nan], 1).tolist() == [0.5, 1, 1]
    assert look(running, [math.nan, 6, math.nan], 2).tolist() == [0.5, 2, 1]
    assert running.diagnostics()["loss_ratio"].isnan().tolist() == [False, False, True]


def test_a_loss_of_zero_stays_finite():
    running = Lbtw().build("ab")
    look(running, [0, 1])
    assert torch.equal(look(running, [0, 0], 1), torch.tensor([1, 1e-4], dtype=torch.float64))
