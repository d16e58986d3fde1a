from itertools import pairwise

import pytest

from mftrun.errors import ConfigError
from mftrun.training.schedulers import Constant, Cosine, Linear, Scheduler


@pytest.mark.parametrize("kind", [Cosine, Linear])
def test_warms_up_to_the_peak_and_ends_at_min_lr(kind):
    schedule = kind(warmup_steps=10, min_lr=0.1)
    rates = [schedule.rate(step, 100, 1.0) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[-1] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in pairwise(rates[9:]))


def test_cosine_is_halfway_down_in_the_middle():
    assert Cosine(warmup_steps=0).rate(50, 100, 2.0) == pytest.approx(1.0)


def test_ratio_is_a_share_of_all_steps():
    schedule = Linear(warmup_ratio=0.2)
    assert schedule.rate(10, 100, 1.0) == pytest.approx(0.5)
    assert schedule.rate(20, 100, 1.0) == 1.0


def test_constant_stays_at_the_peak():
    assert {Constant(warmup_steps=0).rate(step, 9, 0.3) for step in range(1, 10)} == {0.3}


def test_warmup_longer_than_the_run_never_reaches_the_peak():
    assert Cosine(warmup_steps=20).rate(10, 10, 1.0) == 0.5


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("scheduler.warmup_steps", {"warmup_steps": -1}),
        ("scheduler.warmup_ratio", {"warmup_ratio": 1.5}),
        ("scheduler.min_lr", {"min_lr": -1.0}),
    ],
)
def test_refuses_values_out_of_range(key, settings):
    with pytest.raises(ConfigError, match=key):
        Cosine(**settings)


def test_constant_refuses_a_min_lr_it_would_ignore():
    with pytest.raises(ConfigError, match="min_lr"):
        Constant(min_lr=0.1)


def test_all_are_schedulers():
    assert all(isinstance(kind(), Scheduler) for kind in (Cosine, Linear, Constant))
