"""Uncertainty weights, against autograd and torch's Adam."""

import math

import pytest
import torch
from weighting_courses import course, look, look_at_all

from mftrun.losses.weightings import Uncertainty


def test_equals_gradient_descent_on_the_papers_loss():
    losses = course(50, 3)
    log_sigma = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_sigma], lr=0.1)
    running = Uncertainty(lr=0.1).build("abc")
    for step, row in enumerate(losses):
        optimizer.zero_grad()
        (row / (2 * log_sigma.exp() ** 2) + log_sigma).sum().backward()
        optimizer.step()
        expected = 1 / (2 * log_sigma.detach().exp() ** 2)
        assert torch.allclose(look(running, row, step), expected, rtol=1e-10)
    assert torch.allclose(running.diagnostics()["log_sigma"], log_sigma.detach(), rtol=1e-10)


def test_tends_to_the_inverse_of_twice_the_loss():
    weights = look_at_all(Uncertainty().build("abc"), [[4, 1, 0.25]] * 1500)[-1]
    assert weights.tolist() == pytest.approx([1 / 8, 1 / 2, 2], rel=1e-3)


def test_the_first_step_by_hand():
    """Adam's first step is of the size lr, against the sign of the gradient 1 - L / sigma^2."""
    weights = look(Uncertainty(lr=0.2).build("abc"), [4, 1, 0.5])
    assert weights.tolist() == pytest.approx([0.5 * math.exp(-0.4), 0.5, 0.5 * math.exp(0.4)])


def test_only_tasks_that_are_there_learn():
    running = Uncertainty().build("ab")
    look_at_all(running, [[4, math.nan]] * 10)
    assert running.current()[1] == 0.5
    alone = look_at_all(Uncertainty().build("a"), [[3]])[-1]
    assert look(running, [math.nan, 3], 10)[1] == alone[0]


def test_a_loss_of_zero_has_a_limit():
    running = Uncertainty(lr=1.0).build("ab")
    weights = look_at_all(running, [[0, 1]] * 3000)
    assert weights.isfinite().all()
    assert running.diagnostics()["log_sigma"][0] > -15
