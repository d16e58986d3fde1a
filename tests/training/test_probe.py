"""The probe's losses are those of its samples alone, and nothing else about the run changes by it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import probe_worlds
import pytest
import torch
from probe_worlds import Rank
from worlds import ROWS

from mftrun.data.draws import Draws
from mftrun.launch import run_ranks

NUMBERS = [0, 1, 2, 5]


def assert_same(found: torch.Tensor, number: int) -> None:
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, probe_worlds.expected(number), rtol=1e-5, atol=0)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("size", [1, 2, 8])
def test_losses_are_those_of_each_sample_alone(rows: str, size: int) -> None:
    probe, model = probe_worlds.probe(rows, size), probe_worlds.model()
    for number in NUMBERS:
        found = probe.sums(model, number)
        assert_same(found, number)
        assert (found > 0).all(), "every draw holds every task"


def test_draws_differ() -> None:
    probe, model = probe_worlds.probe("packing", 8), probe_worlds.model()
    assert not torch.equal(probe.sums(model, 0), probe.sums(model, 1))


def test_a_sample_that_concat_must_cut_loses_no_target() -> None:
    """Rows of 16 tokens: most samples are longer. Their pieces see less, so only the counts are the same."""
    found = probe_worlds.probe("concat", 2, longest=16).sums(probe_worlds.model(), 0)
    assert torch.equal(found[3:], probe_worlds.expected(0)[3:])


@pytest.mark.parametrize("world", [2, 3, 7])
@pytest.mark.parametrize("rows", ROWS)
def test_the_parts_of_all_ranks_make_up_the_whole(rows: str, world: int) -> None:
    model, calls = probe_worlds.model(), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    total, counted = torch.zeros(6, dtype=torch.float64), []
    for rank in range(world):
        total += probe_worlds.probe(rows, 1, Rank(rank, world)).sums(model, 0)
        counted.append(len(calls) - sum(counted))
    assert_same(total, 0)
    assert len(set(counted)) == 1, "sharded models join the ranks in every forward"


def test_two_ranks_that_train_together() -> None:
    found = run_ranks(probe_worlds.probed, NUMBERS, num_processes=2, log_file=None)
    assert len(found) == len(ROWS) * len(NUMBERS)
    for (_, number), vector in found.items():
        assert_same(vector, number)


def test_a_probe_may_be_asked_in_any_order_and_plans_a_draw_once(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[int] = []
    of = Draws.of
    monkeypatch.setattr(Draws, "of", lambda self, number: planned.append(number) or of(self, number))
    probe, model = probe_worlds.probe("packing", 2), probe_worlds.model()
    found = [probe.sums(model, number) for number in (0, 0, 1, 1, 1, 0)]
    assert planned == [0, 1, 0]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[5])
    assert torch.equal(found[2], found[4])


def states() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), kind, keys.tolist(), *rest, torch.get_rng_state().tolist()


def test_no_random_number_is_drawn_and_dropout_is_off() -> None:
    probe, model = probe_worlds.probe("padding", 2), probe_worlds.model(dropout=0.5)
    before = states()
    first, second = probe.sums(model, 0), probe.sums(model, 0)
    assert states() == before
    assert torch.equal(first, second)
    assert_same(first, 0)


def test_the_dropout_of_that_model_acts_in_training() -> None:
    model = probe_worlds.model(dropout=0.5)
    ids = torch.arange(1, 9)[None]
    inputs = ids, torch.arange(8)[None], torch.arange(7), ids[0, 1:]
    assert not torch.equal(model(*inputs).nll, model(*inputs).nll)


def test_gradients_are_left_alone() -> None:
    model = probe_worlds.model()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    found = probe_worlds.probe("padding", 2).sums(model, 0)
    assert not found.requires_grad
    assert all((parameter.grad == 7).all() for parameter in model.parameters())


def test_the_model_is_back_in_training_mode() -> None:
    probe, model = probe_worlds.probe("padding", 2), probe_worlds.model()
    seen = []
    model.register_forward_pre_hook(lambda module, _: seen.append((module.training, torch.is_grad_enabled())))
    probe.sums(model, 0)
    assert set(seen) == {(False, False)}
    assert all(module.training for module in model.modules())


def test_the_model_is_back_in_training_mode_after_an_error() -> None:
    probe, model = probe_worlds.probe("padding", 2), probe_worlds.model()

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    model.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        probe.sums(model, 0)
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


def test_nothing_is_what_no_samples_give() -> None:
    nothing = probe_worlds.probe("padding", 2).nothing()
    assert torch.equal(nothing, torch.zeros_like(probe_worlds.expected(0)))
    assert nothing.dtype == torch.float64
