from __future__ import annotations

import pytest
import torch

from mftrun.losses.metrics import TaskSums


def add(sums, nll, task_ids):
    sums.add(nll, task_ids, torch.ones(len(nll)))


def test_means_over_everything_added():
    sums = TaskSums(3)
    add(sums, torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 2, 0]))
    add(sums, torch.tensor([5.0]), torch.tensor([0]))
    assert sums.means() == [4.0, None, 2.0]
    assert sums.mean() == 3.5


def test_absent_is_none_and_zero_is_zero():
    sums = TaskSums(2)
    assert sums.means() == [None, None]
    assert sums.mean() is None
    add(sums, torch.zeros(2), torch.tensor([1, 1]))
    assert sums.means() == [None, 0.0]


def test_nothing_added_is_nothing():
    sums = TaskSums(2)
    add(sums, torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert sums.means() == [None, None]


def test_vectors_of_ranks_add_up():
    one, other, whole = TaskSums(2), TaskSums(2), TaskSums(2)
    add(one, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1]))
    add(other, torch.tensor([6.0]), torch.tensor([0]))
    whole.load_vector(one.vector() + other.vector())
    assert whole.means() == [3.0, 3.0]


def test_a_token_of_weight_w_counts_as_w_tokens():
    weighted, repeated = TaskSums(2), TaskSums(2)
    weighted.add(torch.tensor([1.0, 4.0, 2.0]), torch.tensor([0, 0, 1]), torch.tensor([3.0, 1.0, 0.5]))
    add(repeated, torch.tensor([1.0, 1.0, 1.0, 4.0]), torch.tensor([0, 0, 0, 0]))
    assert weighted.means() == [repeated.means()[0], 2.0] == [7 / 4, 2.0]
    assert weighted.mean() == 8 / 4.5


def test_vector_is_a_copy():
    sums = TaskSums(1)
    before = sums.vector()
    add(sums, torch.ones(1), torch.zeros(1, dtype=torch.int64))
    assert before.tolist() == [0, 0]


def test_float32_nlls_are_summed_in_double():
    sums = TaskSums(1)
    step = torch.full((1000,), 0.1)
    for _ in range(200):
        add(sums, step, torch.zeros(1000, dtype=torch.int64))
    assert sums.means()[0] == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)


def test_gradient_is_not_followed():
    sums = TaskSums(1)
    add(sums, torch.ones(1, requires_grad=True), torch.zeros(1, dtype=torch.int64))
    assert not sums.vector().requires_grad
