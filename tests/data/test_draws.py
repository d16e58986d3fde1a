"""Draws of validation samples: every task in each, bounded, and a function of their number alone."""

from __future__ import annotations

import numpy as np
import pytest
from memory_samples import MemorySamples, joined

from mftrun.data.draws import Draws, refuse_unprobed
from mftrun.errors import ConfigError

TASKS = ["large", "small", "single"]


def samples_of(*lengths: list[int], targets: bool = True, tasks: list[str] | None = None) -> MemorySamples:
    """A task for each list, its samples of these lengths; samples of different tasks take turns."""
    made = [(np.arange(n), np.full(n, float(targets)), task) for task, ns in enumerate(lengths) for n in ns]
    mixed = np.random.default_rng(1).permutation(len(made))
    return joined([made[at] for at in mixed], tasks=tasks or TASKS[: len(lengths)])


def uneven() -> MemorySamples:
    random = np.random.default_rng(0)
    return samples_of(random.integers(1, 40, 300).tolist(), random.integers(20, 200, 17).tolist(), [7])


def members(samples: MemorySamples, task: int) -> set[int]:
    return set(np.flatnonzero(samples.task == task).tolist())


def tokens(samples: MemorySamples, draw: np.ndarray, task: int) -> int:
    return int(samples.lengths[draw][samples.task[draw] == task].sum())


@pytest.mark.parametrize("budget", [1, 100, 1000, 10**9])
def test_every_draw_holds_every_task_within_its_budget_and_no_sample_twice(budget: int) -> None:
    samples = uneven()
    draws = Draws(samples, budget, seed=3)
    for number in range(2 * draws.per_pass + 1):
        draw = draws.of(number)
        assert draw.dtype == np.int64
        assert len(set(draw.tolist())) == len(draw)
        for task in range(3):
            count = np.count_nonzero(samples.task[draw] == task)
            assert count == 1 or (count > 1 and tokens(samples, draw, task) <= budget)


@pytest.mark.parametrize("budget", [1, 100, 10**9])
def test_a_pass_shows_every_sample_and_no_shorter_one_does(budget: int) -> None:
    samples = uneven()
    draws = Draws(samples, budget, seed=3)
    shown = [set(draws.of(number).tolist()) for number in range(draws.per_pass)]
    assert set.union(*shown) == set(range(len(samples.task)))
    assert len(set.union(set(), *shown[:-1])) < len(samples.task)


def test_groups_of_a_task_take_turns() -> None:
    """Task small has two groups, single one, large many."""
    samples = samples_of([10] * 50, [10] * 4, [10])
    draws = Draws(samples, 20, seed=0)
    small = [set(draws.of(number).tolist()) & members(samples, 1) for number in range(6)]
    assert draws.per_pass == 25
    assert small[0] | small[1] == members(samples, 1)
    assert not small[0] & small[1]
    assert small == [small[0], small[1]] * 3


def test_whole_samples_fill_a_group_until_the_next_would_exceed_the_budget() -> None:
    samples = samples_of([10] * 7)
    draws = Draws(samples, 39, seed=0)
    assert [len(draws.of(number)) for number in range(draws.per_pass)] == [3, 2, 2]
    assert Draws(samples, 30, seed=0).per_pass == 3
    assert Draws(samples, 29, seed=0).per_pass == 4


def test_a_sample_above_the_budget_stands_alone() -> None:
    samples = samples_of([5, 100, 5, 100, 5])
    draws = Draws(samples, 20, seed=0)
    for number in range(draws.per_pass):
        lengths = samples.lengths[draws.of(number)].tolist()
        assert lengths == [100] or max(lengths) == 5


@pytest.mark.parametrize("seed", range(5))
def test_no_tiny_group_is_left_at_the_end(seed: int) -> None:
    """Forty short samples and one more: the two last groups share what is left."""
    draws = Draws(samples_of([5] * 41), 100, seed)
    assert sorted(len(draws.of(number)) for number in range(draws.per_pass)) == [10, 11, 20]


def test_a_draw_is_a_function_of_samples_seed_and_number() -> None:
    samples = uneven()
    draws, again = Draws(samples, 100, seed=3), Draws(uneven(), 100, seed=3)
    backwards = [again.of(number).tolist() for number in reversed(range(10))]
    assert [draws.of(number).tolist() for number in range(10)] == backwards[::-1]
    assert draws.of(0).tolist() != Draws(samples, 100, seed=4).of(0).tolist()
    assert draws.of(0).tolist() != draws.of(1).tolist()


def test_no_global_random_number_is_drawn() -> None:
    before = np.random.get_state()[1].tolist()
    Draws(uneven(), 100, seed=3).of(1)
    assert np.random.get_state()[1].tolist() == before


def test_samples_stand_in_random_order() -> None:
    drawn = [Draws(samples_of([10] * 100), 100, seed=0).of(number) for number in range(10)]
    assert all(np.ptp(draw) > 20 for draw in drawn)


def test_tasks_of_a_single_sample() -> None:
    draws = Draws(samples_of([3], [500], [1]), 10, seed=0)
    assert draws.per_pass == 1
    assert sorted(draws.of(0).tolist()) == sorted(draws.of(12345).tolist()) == [0, 1, 2]


def test_samples_without_targets_are_never_drawn() -> None:
    blind, seeing = ([1, 2, 3], [0.0, 0.0, 0.0]), ([1, 2, 3], [0.0, 0.0, 0.25])
    samples = joined([(*blind, 0), (*seeing, 0), (*seeing, 1), (*blind, 1), (*seeing, 0)], tasks=TASKS[:2])
    draws = Draws(samples, 3, seed=0)
    assert draws.per_pass == 2
    assert {sample for number in range(9) for sample in draws.of(number).tolist()} == {1, 2, 4}


def test_an_error_names_every_task_that_cannot_be_probed() -> None:
    none, some = np.zeros(3), np.array([0.0, 0.0, 1.0])
    samples = joined([([1, 2, 3], none, 1), ([1, 2, 3], some, 2)], tasks=["absent", "blind", "fine"])
    for refuse in (refuse_unprobed, lambda samples: Draws(samples, 10, seed=0)):
        with pytest.raises(ConfigError) as caught:
            refuse(samples)
        assert caught.value.key == "data.tasks.absent"
        assert "absent, blind." in caught.value.message
        assert "fine" not in caught.value.message
        for way in ("valid_fraction", "valid_min", "valid_path", "loss.weighting.watch=train"):
            assert way in caught.value.message


def test_tasks_that_can_all_be_probed_are_let_through() -> None:
    refuse_unprobed(uneven())
