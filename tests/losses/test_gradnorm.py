"""GradNorm: a step by hand, and what must hold for any observations."""

from __future__ import annotations

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mftrun.errors import ConfigError
from mftrun.losses.weightings.base import Observation, Weighting
from mftrun.losses.weightings.gradnorm import GradNorm

NAN = math.nan


def seen(losses, norms=None, active=None, step=0):
    return Observation(
        step=step,
        losses=vector(losses),
        active=torch.tensor(active or [True] * len(losses)),
        draw=step,
        gradient_norms=None if norms is None else vector(norms),
    )


def vector(values):
    return torch.tensor(values, dtype=torch.float64)


def weights_after(config, *observations):
    weights = config.build([f"task{i}" for i in range(len(observations[0].losses))])
    for observation in observations:
        weights.observe(observation)
    return weights


def assert_close(found, wanted):
    torch.testing.assert_close(found, vector(wanted), rtol=1e-12, atol=1e-14, equal_nan=True)


def simulated(steps, curvature, config, losses=(2.0, 2.0, 2.0)):
    """Tasks whose gradients have norms in proportion to their weights."""
    weights = config.build(["a", "b", "c"])
    weights.observe(seen(losses))
    for step in range(1, steps):
        weights.observe(seen(losses, (weights.current() * vector(curvature)).tolist(), step=step))
    return weights.current()


def test_first_losses_are_only_noted():
    weights = weights_after(GradNorm(), seen([1.0, 2.0, 4.0]))
    assert_close(weights.current(), [1 / 3] * 3)
    assert not weights.diagnostics()


def test_a_step_by_hand():
    """Weights 1, 1, 1 of mean 1; norms 1, 2, 6 of mean 3; L / L(0) = 0.5, 0.5, 1 of mean 2/3."""
    config = GradNorm(alpha=2.0, lr=0.1)
    weights = weights_after(config, seen([4.0, 2.0, 1.0]), seen([2.0, 1.0, 1.0], [1.0, 2.0, 6.0], step=1))
    rates = [0.75, 0.75, 1.5]
    targets = [3 * rate**2 for rate in rates]  # 1.6875, 1.6875, 6.75
    shown = weights.diagnostics()
    assert_close(shown["gradient_norm"], [1.0, 2.0, 6.0])
    assert_close(shown["target"], targets)
    # By 0.1 * G_k / 3 towards the target: up, down, up.
    moved = [1 + 0.1 / 3, 1 - 0.2 / 3, 1 + 0.6 / 3]
    # The last would meet its target at 6.75 / 6, and goes no further.
    moved[2] = 6.75 / 6
    assert_close(weights.current(), [value / sum(moved) for value in moved])


def test_the_second_step_starts_from_the_first():
    """Norms 3, 1 of mean 2 and equal rates: the first goes down by lr * 3 / 2, the second up by lr / 2."""
    config = GradNorm(alpha=1.0, lr=0.01)
    first = seen([1.0, 1.0])
    moved = [1 - 0.015, 1 + 0.005]
    mean_one = [2 * value / sum(moved) for value in moved]
    again = [mean_one[0] - 0.015 / mean_one[0], mean_one[1] + 0.005 / mean_one[1]]
    weights = weights_after(config, first, *[seen([1.0, 1.0], [3.0, 1.0], step=step) for step in (1, 2)])
    assert_close(weights.current(), [value / sum(again) for value in again])


def test_without_pull_norms_become_equal():
    curvature = [1.0, 2.0, 5.0]
    found = simulated(2000, curvature, GradNorm(alpha=0.0))
    inverse = [1 / value for value in curvature]
    torch.testing.assert_close(found, vector(inverse) / sum(inverse), rtol=1e-6, atol=0)


def test_slow_learners_get_more():
    weights = weights_after(
        GradNorm(), seen([2.0, 2.0, 2.0]), seen([2.0, 1.5, 1.0], [1.0, 1.0, 1.0], step=1)
    ).current()
    assert weights[0] > weights[1] > weights[2]


def test_no_step_goes_past_the_target():
    """However large the step: norms 1, 3 of mean 2 ask for the weights 2, 2/3; a norm of 0 moves nothing."""
    config = GradNorm(alpha=0.0, lr=1e3)
    even = weights_after(config, seen([1.0, 1.0]), seen([1.0, 1.0], [1.0, 3.0], step=1))
    assert_close(even.current(), [0.75, 0.25])
    still = weights_after(config, seen([1.0, 1.0]), seen([1.0, 1.0], [100.0, 0.0], step=1))
    assert_close(still.current(), [0.5 / 1.5, 1 / 1.5])


def test_a_weight_has_a_least_value_and_grows_again():
    config = GradNorm(alpha=30.0, lr=1e6, min_weight=0.02)
    weights = weights_after(config, seen([1.0, 1.0]), seen([1e-6, 1.0], [1.0, 1.0], step=1))
    assert float(weights.current()[0]) == pytest.approx(0.02 / 2.02)
    weights.observe(seen([1.0, 1.0], weights.current().tolist(), step=2))
    assert_close(weights.current(), [0.5, 0.5])


def test_equal_tasks_stay_equal():
    weights = GradNorm().build(["a", "b", "c"])
    for step, loss in enumerate([3.0, 2.0, 1.5, 0.1]):
        weights.observe(seen([loss] * 3, [0.1 * loss] * 3, step=step))
        assert len(set(weights.current().tolist())) == 1


def test_absent_tasks_keep_their_weights():
    config = GradNorm()
    start = [seen([2.0, 2.0, 2.0]), seen([2.0, 1.0, 1.5], [1.0, 2.0, 3.0], step=1)]
    before = weights_after(config, *start).current()
    for absent in (
        seen([1.0, NAN, 1.0], [1.0, NAN, 3.0], step=2),
        seen([1.0, 1.0, 1.0], [1.0, NAN, 3.0], step=2),
        seen([1.0, NAN, 1.0], [1.0, 5.0, 3.0], step=2),
    ):
        weights = weights_after(config, *start, absent)
        assert float(weights.current()[1]) == pytest.approx(float(before[1]), rel=1e-12)
        assert weights.current()[0] != before[0]
        shown = weights.diagnostics()
        assert shown["gradient_norm"][1].isnan()
        assert shown["target"][1].isnan()
        # Means run over the two others alone.
        assert float(shown["target"][[0, 2]].sum()) != pytest.approx(0)
        alone = weights_after(GradNorm(alpha=0.0), *start, absent).diagnostics()["target"]
        assert_close(alone, [2.0, NAN, 2.0])


def test_a_task_that_comes_late_is_measured_from_then_on():
    weights = weights_after(
        GradNorm(alpha=1.0),
        seen([2.0, 2.0, NAN]),
        seen([1.0, 1.0, 8.0], [3.0, 3.0, 3.0], step=1),
    )
    assert_close(weights.diagnostics()["target"], [2.25, 2.25, 4.5])


def test_frozen_tasks_take_no_part():
    """The other two go on as if there were none but them."""
    frozen = [True, False, True]
    start = seen([2.0, 2.0, 4.0])
    three = weights_after(GradNorm(), start, seen([1.0, 9.0, 3.0], [1.0, 7.0, 2.0], active=frozen, step=1))
    two = weights_after(GradNorm(), seen([2.0, 4.0]), seen([1.0, 3.0], [1.0, 2.0], step=1))
    assert float(three.current()[1]) == 0
    torch.testing.assert_close(three.current()[[0, 2]], two.current(), rtol=1e-12, atol=0)
    assert three.diagnostics()["target"][1].isnan()


def test_with_all_frozen_or_absent_nothing_happens():
    start = [seen([2.0, 2.0]), seen([1.0, 2.0], [1.0, 3.0], step=1)]
    weights = weights_after(GradNorm(), *start)
    before = weights.current()
    weights.observe(seen([NAN, NAN], [NAN, NAN], step=2))
    weights.observe(seen([1.0, 1.0], None, step=3))
    assert weights.current() is before
    weights.observe(seen([1.0, 1.0], [1.0, 1.0], active=[False, False], step=4))
    assert weights.current().tolist() == [0, 0]


def test_losses_and_gradients_of_zero():
    weights = weights_after(
        GradNorm(),
        seen([0.0, 1.0]),
        seen([0.0, 0.0], [0.0, 0.0], step=1),
        seen([1.0, 0.0], [0.0, 2.0], step=2),
    )
    assert weights.current().isfinite().all()
    assert (weights.current() > 0).all()
    still = weights_after(GradNorm(), seen([1.0, 1.0]), seen([1.0, 1.0], [0.0, 0.0], step=1)).current()
    assert_close(still, [0.5, 0.5])


def test_units_of_the_gradients_do_not_matter():
    observations = [([2.0, 1.0, 1.0], [1.0, 4.0, 2.0]), ([1.0, 1.0, 0.5], [2.0, 3.0, 2.0])]
    found = [
        weights_after(
            GradNorm(),
            *[
                seen(losses, [unit * n for n in norms], step=i)
                for i, (losses, norms) in enumerate(observations)
            ],
        ).current()
        for unit in (1.0, 1e-6)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=0)


def some_observations(num_tasks=4):
    """Losses and norms of each step, some absent, and the task that freezes before it."""
    value = st.one_of(st.floats(0.1, 10), st.floats(0, 1e3), st.just(NAN))
    row = st.lists(value, min_size=num_tasks, max_size=num_tasks)
    freezes = st.one_of(st.none(), st.none(), st.integers(0, num_tasks - 1))
    return st.lists(st.tuples(row, st.one_of(st.none(), row, row), freezes), min_size=1, max_size=6)


def as_observations(drawn, order=None):
    order = list(order or range(len(drawn[0][0])))
    frozen, found = set(), []
    for step, (losses, norms, freezes) in enumerate(drawn):
        frozen.add(freezes)
        picked = [[values[i] for i in order] if values else None for values in (losses, norms)]
        found.append(seen(*picked, active=[i not in frozen for i in order], step=step))
    return found


@settings(deadline=None, max_examples=100)
@given(some_observations())
def test_weights_are_positive_and_finite(drawn):
    observations = as_observations(drawn)
    weights = GradNorm().build("abcd")
    for observation in observations:
        weights.observe(observation)
        current = weights.current()
        assert (current.dtype, current.shape) == (torch.float64, (4,))
        assert current.isfinite().all()
        assert ((current > 0) == observation.active).all()
        assert float(current.sum()) <= 1 + 1e-12


@settings(deadline=None, max_examples=100)
@given(some_observations(), st.permutations(range(4)))
def test_the_order_of_tasks_does_not_matter(drawn, order):
    plain = weights_after(GradNorm(), *as_observations(drawn)).current()
    permuted = weights_after(GradNorm(), *as_observations(drawn, order)).current()
    torch.testing.assert_close(permuted, plain[list(order)], rtol=1e-9, atol=1e-12)


def assert_continues(observations, cut):
    """Saving after `cut` observations and going on elsewhere is the same, bit for bit, as going on."""
    whole = weights_after(GradNorm(), *observations)
    first = GradNorm().build("abcd")
    for observation in observations[:cut]:
        first.observe(observation)
    file = io.BytesIO()
    state = first.state_dict()
    for observation in observations:
        first.observe(observation)  # a state is a snapshot
    torch.save(state, file)
    file.seek(0)
    second = GradNorm().build("abcd")
    second.load_state_dict(torch.load(file, weights_only=True))
    for observation in observations[cut:]:
        second.observe(observation)
    assert torch.equal(second.current(), whole.current())
    assert second.diagnostics().keys() == whole.diagnostics().keys()
    for name, value in whole.diagnostics().items():
        torch.testing.assert_close(second.diagnostics()[name], value, rtol=0, atol=0, equal_nan=True)


@settings(deadline=None, max_examples=50)
@given(some_observations(), st.integers(0, 5))
def test_a_saved_state_continues_bit_for_bit(drawn, cut):
    assert_continues(as_observations(drawn), cut)


@pytest.mark.parametrize("cut", range(6))
def test_a_saved_state_holds_first_losses_and_weights(cut):
    random = torch.Generator().manual_seed(1)
    losses, norms = (torch.rand(6, 4, generator=random, dtype=torch.float64) + 0.1 for _ in range(2))
    assert_continues(
        [seen(*pair, step=i) for i, pair in enumerate(zip(losses.tolist(), norms.tolist(), strict=True))], cut
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("alpha", -0.1),
        ("alpha", NAN),
        ("lr", 0),
        ("lr", "fast"),
        ("min_weight", 0),
        ("min_weight", 1.5),
        ("watch", "test"),
    ],
)
def test_impossible_settings(key, value):
    with pytest.raises(ConfigError) as caught:
        GradNorm(**{key: value})
    assert caught.value.key == f"loss.weighting.{key}"


@pytest.mark.parametrize("watch", ["probe", "train"])
def test_what_it_asks_for(watch):
    config = GradNorm(watch=watch)
    assert isinstance(config, Weighting)
    assert (config.weighs, config.watch, config.draw_repeats) == (True, watch, 1)
    assert config.needs_gradient_norms
