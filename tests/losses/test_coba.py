"""CoBa, against recorded numbers, against its equations written plainly, and in what it is for."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from weighting_courses import course, look, look_at_all

from mftrun.losses.weightings import Coba

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "losses.json"


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference numbers at {REFERENCE}")
def test_reproduces_the_reference():
    cases = json.loads(REFERENCE.read_text())["coba"]
    assert cases
    for case in cases:
        running = Coba(tau=case["tau"], warmup=case["warmup"], window=case["window"]).build(
            [str(index) for index in range(len(case["initial_val_loss"]))]
        )
        begin_from(running, case["initial_val_loss"])
        expected = {one["observations"]: one for one in case["expected"]}
        for count, losses in enumerate(case["val_loss"], 1):
            weights = look(running, losses, step=count)
            if count in expected:
                check(weights, running.diagnostics(), expected.pop(count))
        assert not expected


def check(weights, diagnostics, expected):
    close = {"rel": 1e-6, "abs": 1e-9}
    assert weights.tolist() == pytest.approx(expected["weights"], **close)
    assert diagnostics["rcs"].tolist() == pytest.approx(expected["rcs"], **close)
    assert diagnostics["acs"].tolist() == pytest.approx(expected["acs"], **close)
    assert diagnostics["df"].item() == pytest.approx(expected["df"], **close)
    assert diagnostics["slope"].tolist() == pytest.approx(expected["slopes"], **close)


def begin_from(running, initial):
    """Losses are relative to these, which are no points of the curves."""
    state = running.state_dict()
    state["memory"]["initial"] = torch.tensor(initial, dtype=torch.float64)
    running.load_state_dict(state)


def plainly(losses, tau, window, warmup):
    """The paper's equations on whole lists, for tasks that are always there. Yields weights of warm steps."""
    ratios = np.asarray(losses) / np.asarray(losses)[0]
    slopes, largest = [], []
    for now in range(warmup - 1, len(ratios)):
        recent = ratios[max(0, now + 1 - window) : now + 1]
        slopes.append(np.polyfit(np.arange(len(recent)), recent, 1)[0])
        largest.append(slopes[-1].max())
        held = np.array(slopes[-window:])
        rcs = soft(slopes[-1].size * slopes[-1] / np.abs(slopes[-1]).sum())
        acs = soft(-len(held) * slopes[-1] / np.abs(held).sum(0))
        past = np.array(largest)
        df = min(1, len(past) * soft(-tau * len(past) * past / np.abs(past).sum())[-1])
        yield df * rcs + (1 - df) * acs


def soft(values):
    shifted = np.exp(values - values.max())
    return shifted / shifted.sum()


@pytest.mark.parametrize("seed", range(3))
def test_follows_the_equations(seed):
    losses = course(120, 5, seed)
    weights = look_at_all(Coba(tau=3, window=12, warmup=5).build("abcde"), losses)
    expected = list(plainly(losses, 3, 12, 5))
    assert np.allclose(weights[:4], 0.2)
    assert np.allclose(weights[4:], expected, rtol=1e-8, atol=1e-12)


def test_a_long_run_stays_close_to_the_equations():
    """Beyond the course of largest slopes that is held exactly."""
    losses = course(2600, 3)
    weights = look_at_all(Coba(window=12, warmup=5).build("abc"), losses)
    expected = np.array(list(plainly(losses, 5.0, 12, 5)))
    assert np.allclose(weights[4:], expected, atol=1e-5)
    assert np.ptp(expected[1500:], axis=0).min() > 0.1  # there is something to come close to


def test_scaling_all_losses_changes_nothing():
    losses = course(60, 4)
    plain = look_at_all(Coba(warmup=5, window=20).build("abcd"), losses)
    assert torch.allclose(
        look_at_all(Coba(warmup=5, window=20).build("abcd"), 7.3 * losses), plain, rtol=1e-9
    )
    each = losses * torch.tensor([1, 10, 0.1, 3])
    assert torch.allclose(look_at_all(Coba(warmup=5, window=20).build("abcd"), each), plain, rtol=1e-9)


def diverging():
    """Three tasks that converge at different speeds; the last turns and rises from step 40 on."""
    steps = torch.arange(80, dtype=torch.float64)
    losses = torch.stack([4 * torch.exp(-speed * steps) + 1 for speed in (0.03, 0.02, 0.025)], 1)
    losses[40:, 2] = losses[39, 2] + 0.1 * (steps[40:] - 39)
    return losses


def test_a_diverging_task_falls_and_the_others_rise():
    running = Coba(warmup=5, window=15).build("abc")
    weights = look_at_all(running, diverging())
    assert weights[-1, 2] < 0.7 * weights[39, 2]
    assert (weights[-1, :2] > weights[39, :2]).all()
    assert running.diagnostics()["df"] < 0.05


def test_a_resumed_run_stays_between_its_two_sides():
    """Also if the first observation brings no new slope."""
    first, second = Coba(warmup=5, window=15).build("abc"), Coba(warmup=5, window=15).build("abc")
    look_at_all(first, diverging()[:50])
    second.load_state_dict(first.state_dict())
    before = first.current()
    assert 0 < first.diagnostics()["df"] < 0.9
    assert torch.equal(look(second, [torch.nan] * 3, 50), before)


def test_the_slower_task_gets_more_while_all_converge():
    weights = look_at_all(Coba(warmup=5, window=15).build("abc"), diverging()[:30])
    assert weights[5, 0] < weights[5, 2] < weights[5, 1]


def test_sharpness_and_floor_as_released():
    losses = course(30, 4)
    plain = look_at_all(Coba(warmup=5).build("abcd"), losses)[5:]
    sharp = look_at_all(Coba(warmup=5, sharpness=1).build("abcd"), losses)[5:]
    assert torch.allclose(sharp, torch.softmax(4 * plain, 1))
    floored = look_at_all(Coba(warmup=5, sharpness=9, min_weight=0.5).build("abcd"), losses)[5:]
    raised = torch.softmax(36 * plain, 1).clamp(min=0.5 / 4)
    assert torch.allclose(floored, raised / raised.sum(1, keepdim=True))
    assert (torch.softmax(36 * plain, 1) < 0.5 / 4).any()


def test_nothing_is_known_before_it_is_warm():
    running = Coba(warmup=4).build("abc")
    losses = course(4, 3)
    assert torch.equal(look_at_all(running, losses[:3]), torch.full((3, 3), 1 / 3, dtype=torch.float64))
    cold = running.diagnostics()
    assert cold["df"].isnan()
    assert cold["rcs"].isnan().all()
    assert not cold["slope"].isnan().any()
    look(running, losses[3], 3)
    assert not any(value.isnan().any() for value in running.diagnostics().values())


def test_a_task_whose_data_has_ended_keeps_its_slope_and_its_convergence():
    running = Coba(warmup=3, window=6).build("abc")
    losses = course(40, 3)
    losses[20:, 1] = torch.nan
    look_at_all(running, losses[:20])
    then = running.diagnostics()["slope"][1].item()
    look_at_all(running, losses[20:], 20)
    assert running.diagnostics()["slope"][1].item() == then
    assert not math.isnan(running.diagnostics()["acs"][1].item())


@pytest.mark.parametrize(("draws", "warmup", "window"), [(14, 14, 42), (2, 10, 30), (None, 20, 60)])
def test_warm_up_and_window_follow_the_draws_of_the_probe(draws, warmup, window):
    losses = course(100, 3)
    found = look_at_all(Coba().build("abc", draws), losses)
    named = look_at_all(Coba(warmup=warmup, window=window).build("abc"), losses)
    assert all(torch.equal(one, other) for one, other in zip(found, named, strict=True))
