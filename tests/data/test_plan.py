from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from mftrun.data.mixture import Proportional, Sampler
from mftrun.data.plan import EpochPlan, Planner, evaluation_plan
from mftrun.data.rows import Concat, Packing, Padding, PaddingFree, RowBuilder
from mftrun.data.samplers import Epochs, RoundRobin, Temperature, Weights

WHOLE = [Packing(), Padding(), PaddingFree()]
BUILDERS = [*WHOLE, Concat()]
TASKS = ("a", "b", "c")
SAMPLERS = [
    Proportional(),
    Temperature(3.0),
    Weights(TASKS, {"a": 5, "b": 0.5}, samples_per_epoch=61),
    Epochs(TASKS, {"a": 0.3, "b": 2.5}),
    RoundRobin(),
    RoundRobin("shortest"),
]
SPLITS = [(1, 1), (1, 3), (2, 1), (2, 2), (3, 5), (8, 1), (5, 64)]  # ranks, micro-batch size


def planner(rows: RowBuilder, seed: int = 0, samples: int = 157, batch: int = 8) -> Planner:
    lengths = np.random.default_rng(seed).integers(1, 65, samples)
    task = np.random.default_rng(seed).integers(0, 3, samples).astype(np.int32)
    return Planner(lengths, task, Proportional(), rows, seed, batch, max_length=64)


def dealt(plan: EpochPlan, batch: int, world: int, micro: int) -> list[list[np.ndarray[Any, Any]]]:
    return [plan.window(batch, rank, world, micro) for rank in range(world)]


def flat(windows: list[list[np.ndarray[Any, Any]]]) -> list[int]:
    return sorted(int(row) for window in windows for rows in window for row in rows)


@pytest.mark.parametrize("rows", WHOLE, ids=str)
@pytest.mark.parametrize(("world", "micro"), SPLITS)
@pytest.mark.parametrize(("samples", "batch"), [(157, 8), (1, 4), (40, 1), (90, 1000)])
def test_any_split_covers_the_epoch_exactly_once(
    rows: RowBuilder, world: int, micro: int, samples: int, batch: int
) -> None:
    plan = planner(rows, samples=samples, batch=batch).epoch(0)
    seen: list[int] = []
    for index in range(plan.num_batches):
        windows = dealt(plan, index, world, micro)
        assert flat(windows) == plan.rows_of(index).tolist()
        assert {len(window) for window in windows} == {-(-len(plan.rows_of(index)) // (world * micro))}
        assert all(len(part) <= micro for window in windows for part in window)
        seen += flat(windows)
    assert seen == list(range(plan.rows.num_rows))
    assert sorted(plan.rows.samples.tolist()) == list(range(samples))


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
def test_plan_is_a_function_of_seed_and_epoch(rows: RowBuilder) -> None:
    make = planner(rows)
    first, again = make.epoch(4), planner(rows).epoch(4)
    assert np.array_equal(first.rows.samples, again.rows.samples)
    assert np.array_equal(first.rows.row_ptr, again.rows.row_ptr)
    for other in (make.epoch(5), replace(make, seed=1).epoch(4)):
        assert not np.array_equal(first.rows.samples, other.rows.samples)


def test_packing_is_redone_each_epoch() -> None:
    make = planner(Packing())
    companies = []
    for epoch in range(2):
        plan = make.epoch(epoch).rows
        pairs = zip(plan.row_ptr[:-1], plan.row_ptr[1:], strict=True)
        companies.append({frozenset(plan.samples[a:b].tolist()) for a, b in pairs if b - a > 1})
    assert len(companies[0] & companies[1]) < len(companies[0]) / 2


def test_batches_are_full_except_the_last() -> None:
    plan = planner(Padding(), samples=20, batch=8).epoch(0)
    assert [len(plan.rows_of(i)) for i in range(plan.num_batches)] == [8, 8, 4]
    with pytest.raises(AssertionError):
        plan.rows_of(3)


def test_ranks_without_rows_get_empty_micro_batches() -> None:
    plan = planner(Padding(), samples=5, batch=5).epoch(0)
    windows = dealt(plan, 0, world=4, micro=1)
    assert [[len(part) for part in window] for window in windows] == [[1, 1], [1, 0], [1, 0], [1, 0]]


def test_micro_batches_of_one_turn_have_similar_lengths_and_the_longest_come_first() -> None:
    plan = planner(Padding(), samples=64, batch=64).epoch(0)
    turns = list(zip(*dealt(plan, 0, world=2, micro=4), strict=True))
    lengths = [[plan.rows.lengths[part] for part in turn] for turn in turns]
    lows = [min(part.min() for part in turn) for turn in lengths]
    highs = [max(part.max() for part in turn) for turn in lengths]
    assert all(low >= high for low, high in zip(lows, highs[1:], strict=False))
    assert all(abs(int(first.max()) - int(second.max())) <= 4 for first, second in lengths)


@dataclass(frozen=True)
class Growing:
    """A sampler whose epochs differ in size."""

    def order(self, task: np.ndarray[Any, Any], seed: int, epoch: int) -> np.ndarray[Any, Any]:
        return np.arange(10 * (epoch + 1))


@pytest.mark.parametrize(
    ("sampler", "epochs", "steps"),
    [
        (Proportional(), 1, 25),
        (Proportional(), 3.0, 75),
        (Proportional(), 0.5, 13),
        (Proportional(), 1.2, 30),  # 0.2 of 25 is 5, and 1.2 - 1 a little less or more than 0.2
        (Proportional(), 1.1, 28),
        (Proportional(), 0.001, 1),
        (Growing(), 3, 3 + 5 + 8),
        (Growing(), 1.5, 3 + 3),
    ],
)
def test_total_batches(sampler: Sampler, epochs: float, steps: int) -> None:
    make = replace(planner(Padding(), samples=100, batch=4), sampler=sampler)
    assert make.total_batches(epochs) == steps


def test_float_epochs_cost_no_step() -> None:
    make = planner(Padding(), samples=40, batch=4)
    assert [make.total_batches(1 + tenths / 10) for tenths in range(10)] == list(range(10, 20))


def test_the_plan_of_the_first_epoch_is_kept_for_the_training() -> None:
    make = planner(Padding())
    assert make.epoch(0) is make.epoch(0)
    make.total_batches(4.5)
    counted = make.epoch(0)
    assert make.epoch(0) is counted


def seen_by(make: Planner, steps: int, world: int, start: int = 0) -> list[tuple[int, int]]:
    """Samples and first tokens of the pieces that all ranks see from global batch `start` of epoch 0 on."""
    plan = make.epoch(0)
    windows = [
        dealt(plan, index, world, micro=2) for index in range(start, min(start + steps, plan.num_batches))
    ]
    rows = np.array([row for window in windows for row in flat(window)], np.int64)
    pieces, _ = plan.rows.pieces(rows)
    return list(zip(pieces.samples.tolist(), pieces.starts.tolist(), strict=True))


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_sample_is_seen_once_an_epoch_though_ranks_change_within_it(
    rows: RowBuilder, world: int
) -> None:
    make = planner(rows)
    before, rest = seen_by(make, 3, world), 1000
    for other in (1, 2, 3, 5):
        after = seen_by(planner(rows), rest, other, start=3)
        seen = before + after
        assert sorted({sample for sample, _ in seen}) == list(range(157))
        if rows in WHOLE:
            assert sorted(seen) == [(sample, 0) for sample in range(157)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("rows", BUILDERS, ids=str)
def test_a_resumed_run_sees_what_the_unbroken_one_would(rows: RowBuilder, sampler: Sampler) -> None:
    """Epoch and batch number are all that a checkpoint holds; a fresh planner goes on from them."""
    unbroken = replace(planner(rows), sampler=sampler)
    places = [(epoch, batch) for epoch in range(3) for batch in range(unbroken.epoch(epoch).num_batches)]
    whole = [trained(unbroken, *place) for place in places]
    cut = len(places) // 2
    resumed = replace(planner(rows), sampler=sampler)
    assert [trained(resumed, *place) for place in places[cut:]] == whole[cut:]


def trained(make: Planner, epoch: int, batch: int) -> list[int]:
    plan = make.epoch(epoch)
    return plan.rows.pieces(plan.rows_of(batch))[0].samples.tolist()


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
def test_other_ranks_take_up_exactly_the_rest(rows: RowBuilder) -> None:
    plan = planner(rows).epoch(0)
    assert plan.num_batches > 4
    before = [flat(dealt(plan, index, world=2, micro=2)) for index in range(4)]
    after = [flat(dealt(plan, index, world=3, micro=1)) for index in range(4, plan.num_batches)]
    assert [row for rows in before + after for row in rows] == list(range(plan.rows.num_rows))


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@pytest.mark.parametrize(("world", "micro"), SPLITS)
@pytest.mark.parametrize("samples", [0, 1, 2, 50])
def test_evaluation_sees_every_sample_once(rows: RowBuilder, world: int, micro: int, samples: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 65, samples)
    plan = evaluation_plan(lengths, rows, max_length=64)
    windows = dealt(plan, 0, world, micro)
    assert flat(windows) == list(range(plan.rows.num_rows))
    assert sorted(plan.rows.samples.tolist()) == list(range(samples))
    assert len({len(window) for window in windows}) == 1
    again = evaluation_plan(lengths, rows, max_length=64)
    assert np.array_equal(plan.rows.samples, again.rows.samples)
