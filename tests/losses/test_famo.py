"""FAMO, against a derivation by autograd and torch's Adam, and in when it compares losses."""

import pytest
import torch
from weighting_courses import course, look, look_at_all

from mftrun.errors import ConfigError
from mftrun.losses.weightings import Famo


def derived(losses, lr=0.025, weight_decay=0.01):
    """Weights after each observation: gradients of its loss, and of z . delta, by autograd; Adam by hand."""
    xi = torch.zeros(losses.shape[1], dtype=torch.float64)
    mean, square, weights = torch.zeros_like(xi), torch.zeros_like(xi), []
    for count, now in enumerate(losses):
        if count:
            inner = xi.clone().requires_grad_()
            fallen = losses[count - 1].log() - now.log()
            (torch.softmax(inner, 0) @ fallen).backward()
            gradient = inner.grad + weight_decay * xi
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            unbiased = mean / (1 - 0.9**count), square / (1 - 0.999**count)
            xi = xi - lr * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        z, leaf = torch.softmax(xi, 0), now.clone().requires_grad_()
        ((z * leaf.log()).sum() / (z / now).sum()).backward()
        weights.append(leaf.grad)
    return torch.stack(weights)


@pytest.mark.parametrize(("watch", "every_draw"), [("probe", 0), ("train", 1)])
def test_equals_the_derivation(watch, every_draw):
    losses = course(60, 4)
    weights = look_at_all(Famo(watch=watch).build("abcd"), losses, every_draw=every_draw)
    assert torch.allclose(weights, derived(losses), rtol=1e-10)
    assert torch.allclose(weights.sum(1), torch.ones(60, dtype=torch.float64))


def test_settings_act():
    losses = course(40, 3)
    weights = look_at_all(Famo(lr=0.3, weight_decay=0.5).build("abc"), losses)
    assert torch.allclose(weights, derived(losses, 0.3, 0.5), rtol=1e-10)


def test_the_task_that_falls_least_gets_more():
    running = Famo().build("ab")
    steps = torch.arange(60, dtype=torch.float64)
    look_at_all(running, torch.stack([torch.exp(-0.001 * steps), torch.exp(-0.02 * steps)], 1))
    z = running.diagnostics()["z"]
    assert z[0] > 0.6
    assert z.sum().item() == pytest.approx(1)


def test_losses_of_different_draws_are_not_compared():
    running = Famo().build("ab")
    look(running, [2, 2], 0, draw=7)
    look(running, [1, 2], 1, draw=8)  # easier samples, not a better model
    assert running.diagnostics()["delta"].isnan().all()
    assert running.diagnostics()["z"].tolist() == [0.5, 0.5]
    assert running.current().tolist() == pytest.approx([2 / 3, 1 / 3])  # z / L of the newest losses
    look(running, [0.5, 2], 2, draw=8)
    assert running.diagnostics()["delta"].tolist() == pytest.approx([0.6931472, 0])
    assert running.diagnostics()["z"][1] > 0.5


def test_different_batches_are_compared_when_training_is_watched():
    running = Famo(watch="train").build("ab")
    look(running, [2, 2], 0, draw=7)
    look(running, [1, 2], 1, draw=8)
    assert running.diagnostics()["z"][1] > 0.5


@pytest.mark.parametrize("draw", [7, 9])
def test_batches_that_do_not_follow_each_other_are_not_compared(draw):
    """As those before and after the model was put back to an earlier one."""
    running = Famo(watch="train").build("ab")
    look(running, [2, 2], 0, draw=7)
    look(running, [3, 2], 1, draw=draw)
    assert running.diagnostics()["delta"].isnan().all()
    assert running.diagnostics()["z"].tolist() == [0.5, 0.5]
    look(running, [3, 1], 2, draw=draw + 1)
    assert running.diagnostics()["delta"].tolist() == pytest.approx([0, 0.6931472])


def test_only_losses_of_successive_observations_are_compared():
    running = Famo().build("abc")
    look(running, [2, 2, 2])
    look(running, [1, 2, torch.nan], 1)
    assert running.diagnostics()["delta"].isnan().tolist() == [False, False, True]
    after = running.state_dict()["memory"]["xi"]["values"]
    assert after[2] == 0
    look(running, [1, 2, 1], 2)
    assert running.diagnostics()["delta"].isnan().tolist() == [False, False, True]
    look(running, [1, 2, 0.5], 3)
    assert not running.diagnostics()["delta"].isnan().any()


@pytest.mark.parametrize("cut", [1, 7, 25])
def test_steps_on_both_sides_of_a_checkpoint_are_compared(cut):
    losses = course(30, 3)
    first, second = (Famo(watch="train").build("abc") for _ in range(2))
    before = look_at_all(first, losses[:cut], every_draw=1)
    second.load_state_dict(first.state_dict())
    after = look_at_all(second, losses[cut:], cut, every_draw=1)
    assert torch.allclose(torch.cat([before, after]), derived(losses), rtol=1e-10)


def test_an_absent_task_weighs_by_its_last_loss():
    running = Famo().build("ab")
    look(running, [1, 4])
    assert look(running, [1, torch.nan], 1).tolist() == pytest.approx([0.8, 0.2])


def test_a_probe_that_is_never_repeated_is_refused():
    with pytest.raises(ConfigError, match="two probes of the same samples"):
        Famo(repeats=1)
    assert Famo(repeats=2).draw_repeats == 2
    assert Famo().draw_repeats == 50


def test_watching_training_repeats_no_probe():
    assert Famo(watch="train").draw_repeats == 1
    assert Famo(watch="train", repeats=1).draw_repeats == 1
