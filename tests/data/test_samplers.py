from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mftrun.data.mixture import Proportional, Sampler
from mftrun.data.samplers import Epochs, RoundRobin, Temperature, Weights, quotas
from mftrun.errors import ConfigError

Array = np.ndarray[Any, Any]
TASKS = ("large", "small", "single")
SIZES = (300, 40, 1)
TASK = np.random.default_rng(0).permutation(np.repeat(np.arange(3, dtype=np.int32), SIZES))
SAMPLERS: list[Sampler] = [
    Temperature(),
    Temperature(1.0),
    Temperature(0.5, samples_per_epoch=1000),
    Weights(TASKS, {"large": 1, "small": 2, "single": 0.1}),
    Weights(TASKS, {"single": 0}, samples_per_epoch=77),
    Epochs(TASKS, {"large": 0.3, "small": 2.5, "single": 3}),
    RoundRobin(),
    RoundRobin("shortest"),
]


def counts(order: Array, task: Array = TASK, tasks: int = 3) -> list[int]:
    return np.bincount(task[order], minlength=tasks).tolist()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_order_is_a_function_of_seed_and_epoch(sampler: Sampler) -> None:
    order = sampler.order(TASK, 1, 2)
    assert order.dtype == np.int64
    assert np.array_equal(order, sampler.order(TASK, 1, 2))
    for other in (sampler.order(TASK, 1, 3), sampler.order(TASK, 2, 2)):
        assert not np.array_equal(order, other)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_no_sample_comes_again_before_all_of_its_task_were_seen(sampler: Sampler) -> None:
    """Counted over epochs: at any epoch's end the samples of a task differ by one visit at most."""
    seen: Counter[int] = Counter()
    for epoch in range(12):
        seen.update(sampler.order(TASK, 0, epoch).tolist())
        for number in set(TASK[list(seen)].tolist()):
            visits = [seen[sample] for sample in np.flatnonzero(number == TASK).tolist()]
            assert max(visits) - min(visits) <= 1


@pytest.mark.parametrize("sampler", [Epochs(TASKS), Weights(TASKS, dict(zip(TASKS, SIZES, strict=True)))])
def test_shares_of_their_sizes_visit_every_sample_once(sampler: Sampler) -> None:
    for epoch in range(3):
        assert sorted(sampler.order(TASK, 0, epoch)) == list(range(len(TASK)))


def test_temperature_shares() -> None:
    assert counts(Temperature(1.0).order(TASK, 0, 0)) == list(SIZES)
    roots = np.sqrt(SIZES) / np.sqrt(SIZES).sum() * len(TASK)
    assert np.abs(np.array(counts(Temperature(2.0).order(TASK, 0, 0))) - roots).max() < 1
    even = counts(Temperature(1e9, samples_per_epoch=30).order(TASK, 0, 0))
    assert even == [10, 10, 10]
    cold = counts(Temperature(1e-9, samples_per_epoch=30).order(TASK, 0, 0))
    assert cold == [28, 1, 1]


def test_weights_are_shares_whatever_the_sizes() -> None:
    sampler = Weights(TASKS, {"large": 0.5, "small": 0.25, "single": 0.25}, samples_per_epoch=40)
    assert counts(sampler.order(TASK, 0, 5)) == [20, 10, 10]


def test_a_task_that_is_not_named_weighs_one_and_zero_leaves_it_out() -> None:
    assert counts(Weights(TASKS, {"large": 0}, samples_per_epoch=40).order(TASK, 0, 0)) == [0, 20, 20]
    assert counts(Epochs(TASKS, {"large": 0}).order(TASK, 0, 0)) == [0, 40, 1]


def test_epochs_repeat_and_go_on_where_the_last_one_ended() -> None:
    sampler = Epochs(TASKS, {"large": 0.5, "small": 2.25, "single": 0.1})
    orders = [sampler.order(TASK, 0, epoch) for epoch in range(10)]
    assert [counts(order) for order in orders[:2]] == [[150, 90, 1], [150, 90, 0]]
    assert [sum(counts(order)[k] for order in orders) for k in range(3)] == [1500, 900, 1]
    halves = [set(order[TASK[order] == 0].tolist()) for order in orders]
    assert halves[0] | halves[1] == set(np.flatnonzero(TASK == 0).tolist())
    assert halves[0] != halves[2]


@pytest.mark.parametrize("repeats", [0.1, 0.3, 0.7, 1.1])
def test_fractions_neither_gain_nor_lose_samples(repeats: float) -> None:
    task = np.zeros(100, np.int32)
    seen = sum(len(Epochs(("a",), {"a": repeats}).order(task, 0, epoch)) for epoch in range(30))
    assert seen == round(repeats * 100 * 30)


def test_round_robin_takes_turns() -> None:
    for sampler, rounds in ((RoundRobin(), 300), (RoundRobin("shortest"), 1)):
        order = sampler.order(TASK, 0, 1)
        assert TASK[order].tolist() == [0, 1, 2] * rounds
    longest = order_of_task(RoundRobin().order(TASK, 0, 3), 0)
    assert sorted(longest) == np.flatnonzero(TASK == 0).tolist()


def order_of_task(order: Array, number: int) -> list[int]:
    return order[TASK[order] == number].tolist()


@pytest.mark.parametrize("sampler", SAMPLERS[:-2], ids=str)
def test_tasks_are_mixed_over_the_epoch(sampler: Sampler) -> None:
    visited = TASK[sampler.order(TASK, 0, 0)]
    halves = np.array_split(visited == 1, 2)
    assert abs(halves[0].mean() - halves[1].mean()) < 0.25


@pytest.mark.parametrize("sampler", [Temperature(), Weights(("a", "b", "c", "d")), RoundRobin()], ids=str)
def test_tasks_without_samples_take_no_share(sampler: Sampler) -> None:
    task = np.array([3, 3, 1], np.int32)
    visited = counts(sampler.order(task, 0, 0), task, 4)
    assert visited[0] == visited[2] == 0
    assert visited[1] > 0 < visited[3]


@pytest.mark.parametrize("sampler", [Proportional(), *SAMPLERS], ids=str)
def test_no_samples_at_all(sampler: Sampler) -> None:
    assert sampler.order(np.zeros(0, np.int32), 0, 0).tolist() == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=8).filter(lambda shares: max(shares) > 1e-3),
    st.integers(8, 10_000),
)
def test_quotas_are_shares_to_within_one(shares: list[float], total: int) -> None:
    given_shares = np.array(shares)
    found = quotas(given_shares, total)
    exact = total * given_shares / given_shares.sum()
    assert found.sum() == total
    assert (found > 0).tolist() == (given_shares > 0).tolist()
    raised = np.maximum(exact, given_shares > 0)
    assert np.abs(found - raised).max() <= max(1, (exact < 1).sum() + 1)


def test_quotas_by_largest_remainder() -> None:
    assert quotas(np.array([0.5, 0.3, 0.2]), 7).tolist() == [4, 2, 1]  # 3.5, 2.1, 1.4
    assert quotas(np.array([1.0, 1.0, 0.0]), 3).tolist() == [2, 1, 0]
    assert quotas(np.array([1e6, 1.0, 1.0]), 10).tolist() == [8, 1, 1]


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Temperature(0.0), "sampler.temperature"),
        (lambda: Temperature(float("nan")), "sampler.temperature"),
        (lambda: Temperature(samples_per_epoch=0), "sampler.samples_per_epoch"),
        (lambda: Weights(TASKS, {"smal": 2}), "sampler.weights.smal"),
        (lambda: Weights(TASKS, {"small": -1}), "sampler.weights.small"),
        (lambda: Weights(TASKS, {"small": float("inf")}), "sampler.weights.small"),
        (lambda: Weights(TASKS, dict.fromkeys(TASKS, 0)), "sampler.weights"),
        (lambda: Weights(TASKS, samples_per_epoch=-3), "sampler.samples_per_epoch"),
        (lambda: Epochs(TASKS, {"smal": 2}), "sampler.repeats.smal"),
        (lambda: Epochs(TASKS, {"small": "2"}), "sampler.repeats.small"),  # type: ignore[dict-item]
        (lambda: Epochs(TASKS, dict.fromkeys(TASKS, 0)), "sampler.repeats"),
        (lambda: RoundRobin("both"), "sampler.until"),  # type: ignore[arg-type]
        (lambda: Temperature(samples_per_epoch=2).order(TASK, 0, 0), "sampler.samples_per_epoch"),
        (lambda: Epochs(("a",), {"a": 0.001}).order(np.zeros(9, np.int32), 0, 0), "sampler.repeats"),
        (lambda: Weights(("a", "b"), {"a": 0}).order(np.zeros(9, np.int32), 0, 0), "sampler.weights"),
    ],
)
def test_impossible_values_name_their_key(make: Any, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.key == key


def test_an_unknown_task_comes_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"sampler\.weights\.small\?"):
        Weights(TASKS, {"smal": 2})


def test_orders_are_pinned() -> None:
    """Data orders of old checkpoints: these numbers may never change."""
    task = np.array([0, 0, 0, 0, 1, 1], np.int32)
    samplers = Temperature(samples_per_epoch=8), Epochs(("a", "b")), RoundRobin()
    assert [sampler.order(task, 5, 2).tolist() for sampler in samplers] == [
        [5, 4, 2, 1, 5, 0, 3, 2],
        [5, 2, 4, 3, 0, 1],
        [1, 5, 3, 4, 2, 5, 0, 4],
    ]


def test_an_epoch_without_end_is_refused() -> None:
    task = np.zeros(13, np.int32)
    with pytest.raises(ConfigError, match=r"sampler\.repeats: an epoch would have 13,000,000,000 samples"):
        Epochs(tasks=["a"], repeats={"a": 1e9}).order(task, 0, 0)
    with pytest.raises(ConfigError, match=r"sampler\.samples_per_epoch: an epoch would have 200,000,000"):
        Temperature(samples_per_epoch=200_000_000).order(task, 0, 0)
