"""Static weights, and what every adaptive weighting must keep to."""

from __future__ import annotations

import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from weighting_courses import course, look, look_at_all

from mftrun.errors import ConfigError
from mftrun.losses.weightings import (
    Coba,
    Dro,
    Dwa,
    Famo,
    Lbtw,
    SelfPaced,
    Static,
    Uncertainty,
    Weighting,
    uniform,
)

TASKS = ["code_completion", "text_to_sql", "translation"]
NAMES = ["a", "b", "c", "d"]

ADAPTIVE = {
    "self_paced": SelfPaced(window=8, scale=5.0, warmup=3),
    "coba": Coba(window=8, warmup=4),
    "coba_as_released": Coba(window=8, warmup=4, sharpness=1.0, min_weight=0.1),
    "famo": Famo(),
    "famo_train": Famo(watch="train"),
    "lbtw": Lbtw(),
    "dwa": Dwa(),
    "dwa_of_blocks": Dwa(window=3),
    "uncertainty": Uncertainty(),
    "dro": Dro(eta=0.1),
}
every = pytest.mark.parametrize("weighting", ADAPTIVE.values(), ids=ADAPTIVE.keys())


def test_unnamed_tasks_weigh_one():
    assert Static({"translation": 2.5}).build(TASKS).current().tolist() == [1.0, 1.0, 2.5]
    assert Static().build(TASKS).current().tolist() == [1.0, 1.0, 1.0]
    assert Static({}).build(TASKS).current().tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf, "2", None])
def test_impossible_weight(weight):
    with pytest.raises(ConfigError) as caught:
        Static({"translation": weight})
    assert caught.value.key == "loss.weighting.weights.translation"
    assert repr(weight) in caught.value.message


def test_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        Static({"text2sql": 2.0}).build(TASKS)
    assert caught.value.key == "loss.weighting.weights.text2sql"
    assert "text_to_sql" in caught.value.message


def test_all_weights_zero_is_refused():
    with pytest.raises(ConfigError, match="weight 0"):
        Static(dict.fromkeys(TASKS, 0)).build(TASKS)
    assert Static(dict.fromkeys(TASKS[:2], 0)).build(TASKS).current().tolist() == [0, 0, 1]


def test_weights_that_overflow_are_refused():
    with pytest.raises(ConfigError, match="only their ratios matter"):
        Static(dict.fromkeys(TASKS[:2], 1e308)).build(TASKS)


def test_knows_whether_it_weighs():
    assert not Static().weighs
    assert not Static({"translation": 1}).weighs
    assert Static({"translation": 0}).weighs


@every
def test_is_a_weighting_that_starts_uniform(weighting):
    assert isinstance(weighting, Weighting)
    assert weighting.weighs
    assert not weighting.needs_gradient_norms
    weights = weighting.build(NAMES)
    assert torch.equal(weights.current(), uniform(4))
    assert weights.diagnostics() == {}


@every
def test_weights_move_apart(weighting):
    """The other tests would hold for weights that never change."""
    weights = shares(look_at_all(weighting.build(NAMES), course(30, 4)))
    assert (weights[-1] - 0.25).abs().max() > 1e-4


@every
def test_permuting_tasks_permutes_weights(weighting):
    losses, order = course(30, 4, absent=0.2), torch.tensor([2, 0, 3, 1])
    plain = look_at_all(weighting.build(NAMES), losses)
    permuted = look_at_all(weighting.build(NAMES), losses[:, order])
    assert torch.allclose(permuted, plain[:, order], rtol=1e-9, atol=1e-12)


@every
@pytest.mark.parametrize("cut", [0, 1, 2, 3, 7, 12, 25])
def test_saved_and_loaded_is_as_if_never_stopped(weighting, cut):
    losses = course(30, 4, absent=0.2)
    whole, first, second = (weighting.build(NAMES) for _ in range(3))
    expected = look_at_all(whole, losses)
    look_at_all(first, losses[:cut])
    second.load_state_dict(through_a_file(first.state_dict()))
    assert torch.equal(second.current(), expected[cut - 1] if cut else uniform(4))
    assert same(second.diagnostics(), first.diagnostics())
    assert torch.equal(look_at_all(second, losses[cut:], cut), expected[cut:])
    assert same(second.diagnostics(), whole.diagnostics())


@every
def test_a_state_is_a_snapshot(weighting):
    losses = course(30, 4)
    weights, reader = weighting.build(NAMES), weighting.build(NAMES)
    look_at_all(weights, losses[:10])
    state = weights.state_dict()
    first = look_at_all(weights, losses[10:], 10)
    reader.load_state_dict(state)
    assert torch.equal(look_at_all(reader, losses[10:], 10), first)
    reader.load_state_dict(state)  # reading it has left it alone, too
    assert torch.equal(look_at_all(reader, losses[10:], 10), first)


@every
def test_state_does_not_grow(weighting):
    weights = weighting.build(NAMES)
    look_at_all(weights, course(10, 4))
    early = len(as_bytes(weights.state_dict()))
    look_at_all(weights, course(3000, 4), 10)
    assert len(as_bytes(weights.state_dict())) <= early + 100  # a pickled 3000 is longer than a 10


@every
@given(
    rows=st.lists(
        st.lists(
            st.one_of(st.just(math.nan), st.just(math.inf), st.just(0.0), st.floats(0, 50)),
            min_size=3,
            max_size=3,
        ),
        max_size=25,
    ),
    frozen=st.lists(st.integers(0, 2), max_size=2),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_weights_are_finite_whatever_is_observed(weighting, rows, frozen):
    weights = weighting.build(NAMES[:3])
    active = [index not in frozen for index in range(3)]
    for values in look_at_all(weights, rows, active=active):
        assert values.dtype == torch.float64
        assert values.isfinite().all()
        assert (values >= 0).all()
        assert not values[~torch.tensor(active)].any()
        assert values.sum() > 0


@every
def test_equal_courses_give_equal_weights(weighting):
    losses = course(30, 1).expand(30, 4)
    weights = look_at_all(weighting.build(NAMES), losses)
    assert torch.allclose(shares(weights), torch.full((30, 4), 0.25, dtype=torch.float64), rtol=1e-12)


@every
def test_an_absent_task_has_the_course_of_its_own_observations(weighting):
    """Nothing was ever seen of the last task: the others share as they would without it."""
    losses = course(30, 4)
    with_it = look_at_all(weighting.build(NAMES), losses.index_fill(1, torch.tensor([3]), torch.nan))
    without = look_at_all(weighting.build(NAMES[:3]), losses[:, :3])
    assert torch.allclose(shares(with_it[:, :3]), shares(without), rtol=1e-9)
    assert (with_it[:, 3] > 0).all()


@every
def test_an_observation_of_nothing_changes_nothing(weighting):
    losses = course(30, 4)
    weights = weighting.build(NAMES)
    look_at_all(weights, losses)
    before = weights.current()
    look_at_all(weights, torch.full((20, 4), torch.nan), 30)
    assert torch.allclose(weights.current(), before, rtol=1e-12)
    assert not any(value.isinf().any() for value in weights.diagnostics().values())


@every
def test_a_loss_of_zero_is_a_loss(weighting):
    """A task whose loss comes to 0 is weighed by other numbers than one that is absent from then on."""
    falling, gone = course(30, 4), course(30, 4)
    falling[20:, 1], gone[20:, 1] = 0, torch.nan
    zero, absent = weighting.build(NAMES), weighting.build(NAMES)
    assert look_at_all(zero, falling).isfinite().all()
    look_at_all(absent, gone)
    assert not same(zero.diagnostics(), absent.diagnostics())


@every
def test_a_frozen_task_takes_no_part(weighting):
    """Whatever its losses are, the others have the weights they would have without it."""
    losses = course(30, 4)
    losses[:, 2] = torch.linspace(1, 90, 30)
    with_it = look_at_all(weighting.build(NAMES), losses, active=[True, True, False, True])
    without = look_at_all(weighting.build(["a", "b", "d"]), losses[:, [0, 1, 3]])
    assert torch.allclose(with_it[:, [0, 1, 3]], without, rtol=1e-9, atol=1e-12)
    assert not with_it[:, 2].any()


@every
def test_freezing_midway_and_all(weighting):
    weights = weighting.build(NAMES)
    look_at_all(weights, course(20, 4))
    some = look_at_all(weights, course(40, 4)[20:30], 20, active=[True, False, True, True])
    assert not some[:, 1].any()
    assert (some[:, [0, 2, 3]].sum(1) > 0).all()
    none = look_at_all(weights, course(40, 4)[30:], 30, active=[False] * 4)
    assert not none.any()


@every
def test_the_tensor_is_a_new_one_when_it_changes_and_only_then(weighting):
    weights = weighting.build(NAMES)
    seen, last = [], weights.current()
    for step, row in enumerate(course(20, 4)):
        now = look(weights, row, step)
        assert (now is last) == torch.equal(now, last)
        seen.append(now.clone())
        last = now
    assert torch.equal(seen[-1], last)
    assert len({id(weights.current()) for _ in range(3)}) == 1


@every
def test_diagnostics_are_numbers_or_one_per_task(weighting):
    weights = weighting.build(NAMES)
    look_at_all(weights, course(20, 4))
    assert weights.diagnostics()
    assert all(value.shape in {(4,), ()} for value in weights.diagnostics().values())
    assert all(value.isfinite().all() for value in weights.diagnostics().values())


@every
def test_a_state_of_other_tasks_is_refused(weighting):
    with pytest.raises(ConfigError, match="weights of 4 tasks, this run has 3"):
        weighting.build(NAMES[:3]).load_state_dict(weighting.build(NAMES).state_dict())


@pytest.mark.parametrize("kind", list(dict.fromkeys(map(type, ADAPTIVE.values()))))
def test_unknown_watch_is_refused(kind):
    with pytest.raises(ConfigError, match=r"loss\.weighting\.watch: must be probe or train, not 'both'"):
        kind(watch="both")
    assert kind(watch="train").watch == "train"
    assert kind().watch == "probe"


def no_number(low=None):
    return [math.nan, math.inf, "1", None, True, *([] if low is None else [low])]


@pytest.mark.parametrize(
    ("kind", "setting", "values"),
    [
        (SelfPaced, "window", [1, 0, 2.5, "9", True]),
        (SelfPaced, "warmup", [1, 2.5]),
        (SelfPaced, "scale", no_number(-1)),
        (Coba, "tau", no_number(0)),
        (Coba, "window", [1, 2.5]),
        (Coba, "warmup", [1, 2.5]),
        (Coba, "sharpness", [math.nan, math.inf, "1", True, 0]),
        (Coba, "min_weight", [*no_number(-0.1), 1.1]),
        (Famo, "lr", [*no_number(0), 1.1]),
        (Famo, "weight_decay", no_number(-1)),
        (Famo, "repeats", [1, 0, 2.5, None]),
        (Lbtw, "alpha", [*no_number(-0.1), 11]),
        (Dwa, "temperature", no_number(0)),
        (Dwa, "window", [0, 1.5]),
        (Uncertainty, "lr", [*no_number(0), 1.1]),
        (Dro, "eta", no_number(0)),
    ],
)
def test_impossible_settings(kind, setting, values):
    for value in values:
        with pytest.raises(ConfigError) as caught:
            kind(**{setting: value})
        assert caught.value.key == f"loss.weighting.{setting}"
        assert repr(value) in caught.value.message


def shares(weights):
    return weights / weights.sum(-1, keepdim=True)


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[name].nan_to_num(-1), other[name].nan_to_num(-1)) for name in one
    )


def as_bytes(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def through_a_file(state):
    return torch.load(io.BytesIO(as_bytes(state)), weights_only=True)
