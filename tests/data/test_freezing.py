"""Frozen tasks: none of their samples any more, and all of the others' as before."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from memory_samples import MemorySamples, joined

from mftrun.data.batch import collate, window_counts
from mftrun.data.epochs import SameSamples
from mftrun.data.mixture import Proportional, Sampler
from mftrun.data.plan import EpochPlan, Freeze, Planner
from mftrun.data.rows import Concat, Packing, Padding, PaddingFree, RowBuilder, SplitPacking
from mftrun.data.samplers import Epochs, RoundRobin, Temperature, Weights

TASKS = ("a", "b", "c")
BUILDERS = [Packing(), SplitPacking(), Padding(), Padding(1), PaddingFree(), PaddingFree(30), Concat()]
SAMPLERS = [
    Proportional(),
    Temperature(3.0),
    Weights(TASKS, {"a": 5, "b": 0.5}),
    Epochs(TASKS, {"a": 0.3, "b": 2.5}),
    RoundRobin(),
]
EPOCH, BATCH = 2, 4
Target = tuple[int, int]


def samples_of(rows: RowBuilder, count: int = 200) -> MemorySamples:
    """Samples of three tasks, longer than a row where the rows can take that. Token n is n itself."""
    rng = np.random.default_rng(0)
    made, first = [], 0
    for length in rng.integers(2, 90 if rows.splits_samples else 33, count).tolist():
        made.append((range(first, first + length), [0.0, *[1.0] * (length - 1)], int(rng.integers(0, 3))))
        first += length
    return joined(made, tasks=TASKS)


def planner(rows: RowBuilder, sampler: Sampler | None = None, **more: Any) -> Planner:
    samples = samples_of(rows)
    made = Planner(samples.lengths, samples.task, sampler or Proportional(), rows, 0, 4, max_length=32)
    return replace(made, **more)


def trained(plan: EpochPlan, first: int = 0, last: int | None = None) -> Counter[Target]:
    """Sample and place of every target in the batches from `first` up to, not including, `last`."""
    found: Counter[Target] = Counter()
    for index in range(first, plan.num_batches if last is None else last):
        pieces, _ = plan.rows.pieces(plan.rows_of(index))
        for sample, start, size in zip(*(column.tolist() for column in pieces), strict=True):
            found.update((sample, start + at) for at in range(1, size))
    return found


def of_tasks(targets: Counter[Target], task: np.ndarray[Any, Any], kept: Sequence[int]) -> Counter[Target]:
    return Counter({target: n for target, n in targets.items() if task[target[0]] in kept})


def same(one: EpochPlan, other: EpochPlan) -> bool:
    fields = ("row_ptr", "samples", "starts", "sizes", "lengths")
    return all(np.array_equal(getattr(one.rows, name), getattr(other.rows, name)) for name in fields)


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_task_frozen_before_an_epoch_is_left_out_of_the_sampler_s_order(
    rows: RowBuilder, sampler: Sampler
) -> None:
    make = planner(rows, sampler)
    whole = make.epoch(EPOCH)
    for freeze in (Freeze(1, EPOCH - 1, 3), Freeze(1, EPOCH, 0)):
        without = make.epoch(EPOCH, [freeze])
        assert trained(without) == of_tasks(trained(whole), make.task, (0, 2))
        assert without.num_batches < whole.num_batches


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_task_frozen_inside_an_epoch_leaves_everything_else_to_be_trained_once(
    rows: RowBuilder, sampler: Sampler
) -> None:
    make = planner(rows, sampler)
    whole = make.epoch(EPOCH)
    frozen = make.epoch(EPOCH, [Freeze(1, EPOCH, BATCH)])
    for index in range(BATCH):
        assert np.array_equal(frozen.rows_of(index), whole.rows_of(index))
    done = np.arange(BATCH * 4)
    assert [part.tolist() for part in frozen.rows.pieces(done)[0]] == [
        part.tolist() for part in whole.rows.pieces(done)[0]
    ]
    assert trained(frozen, BATCH) == of_tasks(trained(whole, BATCH), make.task, (0, 2))
    assert frozen.num_batches < whole.num_batches
    assert int(frozen.rows.lengths.max()) <= int(whole.rows.lengths.max())


@pytest.mark.parametrize("rows", [Packing(), SplitPacking(), Concat(), PaddingFree()], ids=str)
def test_rows_are_full_again_after_a_freeze(rows: RowBuilder) -> None:
    plan = planner(rows).epoch(EPOCH, [Freeze(1, EPOCH, BATCH)])
    after = plan.rows.lengths[4 * BATCH :]
    assert np.sort(after)[1:].mean() > 0.75 * 32  # whole samples in their order leave the most unfilled
    assert [len(plan.rows_of(index)) for index in range(plan.num_batches - 1)] == [4] * (plan.num_batches - 1)


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
def test_several_freezes_apply_in_order(rows: RowBuilder) -> None:
    make = planner(rows)
    first, second = Freeze(1, EPOCH, 2), Freeze(2, EPOCH, 5)
    one, both = make.epoch(EPOCH, [first]), make.epoch(EPOCH, [first, second])
    assert trained(both, last=5) == trained(one, last=5)
    assert trained(both, 5) == of_tasks(trained(one, 5), make.task, (0,))
    at_once = make.epoch(EPOCH, [Freeze(1, EPOCH, 2), Freeze(2, EPOCH, 2)])
    assert trained(at_once, 2) == of_tasks(trained(make.epoch(EPOCH), 2), make.task, (0,))
    earlier = make.epoch(EPOCH, [Freeze(2, EPOCH - 1, 7), first])
    assert of_tasks(trained(earlier), make.task, (2,)) == Counter()
    assert of_tasks(trained(earlier, 2), make.task, (1,)) == Counter()


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
def test_a_plan_is_a_function_of_its_freezes(rows: RowBuilder) -> None:
    """A resumed run makes it from the list alone; freezes to come change nothing."""
    freezes = [Freeze(0, EPOCH - 1, 4), Freeze(1, EPOCH, 3), Freeze(2, EPOCH + 1, 1)]
    walked = planner(rows)
    for told in range(len(freezes) + 1):
        walked.epoch(EPOCH, freezes[:told])
    assert same(walked.epoch(EPOCH, freezes), planner(rows).epoch(EPOCH, freezes))
    assert same(planner(rows).epoch(EPOCH, freezes), planner(rows).epoch(EPOCH, freezes[:2]))
    assert same(planner(rows).epoch(0, freezes), planner(rows).epoch(0))


@dataclass(frozen=True)
class Noting(Padding):
    """Takes a note of the first number of every generator that it is given."""

    drawn: list[int] = field(default_factory=list)

    def arrange(
        self, lengths: np.ndarray[Any, Any], size: int, rng: np.random.Generator
    ) -> np.ndarray[Any, Any]:
        self.drawn.append(int(rng.bit_generator.random_raw()))
        return super().arrange(lengths, size, rng)


def test_the_order_after_a_freeze_is_drawn_anew_for_its_place_and_seed() -> None:
    rows = Noting()
    make = planner(rows)
    for other in (make, replace(make, seed=1)):
        for epoch in (EPOCH, EPOCH + 1):
            other.epoch(epoch, [Freeze(1, epoch, 3), Freeze(2, epoch, 4)])
    assert len(set(rows.drawn)) == len(rows.drawn) == 2 * 2 * 3


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
def test_an_epoch_of_nothing_but_frozen_tasks_has_no_batch_left(rows: RowBuilder) -> None:
    make = planner(rows)
    everything = [Freeze(task, EPOCH, BATCH) for task in range(3)]
    plan = make.epoch(EPOCH, everything)
    assert plan.num_batches == BATCH
    assert make.epoch(EPOCH + 1, everything).num_batches == 0
    behind = make.epoch(EPOCH).num_batches
    assert make.epoch(EPOCH, [Freeze(0, EPOCH, behind)]).num_batches == behind


def test_plans_are_kept_though_tasks_are_frozen() -> None:
    make = planner(Packing())
    early, late = [Freeze(0, 0, 2)], [Freeze(0, 0, 2), Freeze(1, 1, 3)]
    assert make.epoch(1, early) is make.epoch(1, list(early))
    assert make.epoch(0, early) is make.epoch(0, late), "what is frozen in epoch 1 does not concern epoch 0"
    assert make.epoch(1, late) is make.epoch(1, late)


@dataclass(frozen=True)
class Counting(Proportional):
    """Counts the orders it is asked for."""

    asked: list[int] = field(default_factory=list)

    def order(self, task: np.ndarray[Any, Any], seed: int, epoch: int) -> np.ndarray[Any, Any]:
        self.asked.append(epoch)
        return super().order(task, seed, epoch)


def one_by_one(count: int) -> list[Freeze]:
    return [Freeze(task, 0, task + 1) for task in range(count)]


def planner_of_many_tasks(count: int, sampler: Sampler) -> Planner:
    task = np.arange(2 * count) % count
    return Planner(np.full(len(task), 5), task, sampler, Padding(), 0, 1, max_length=8)


def test_a_resumed_run_plans_an_epoch_in_which_many_tasks_were_frozen() -> None:
    """More than there may be calls inside each other."""
    count = sys.getrecursionlimit() + 10
    freezes = one_by_one(count)
    going_on = planner_of_many_tasks(count + 1, Proportional())
    for told in range(count + 1):
        plan = going_on.epoch(0, freezes[:told])
    seen = plan.rows.samples % (count + 1)
    assert len(seen) > count / 2
    assert all(task not in seen[task + 1 :] for task in range(count))
    assert same(planner_of_many_tasks(count + 1, Proportional()).epoch(0, freezes), plan)


def test_freezes_of_a_run_that_goes_on_are_added_to_the_plan_that_is_there() -> None:
    rows = Noting()
    sampler = Counting()
    make = replace(planner(rows), sampler=sampler)
    make.epoch(EPOCH - 1)
    told = [Freeze(0, EPOCH, 2), Freeze(1, EPOCH, 4), Freeze(2, EPOCH, 5)]
    for count in range(len(told) + 1):
        plan = make.epoch(EPOCH, told[:count])
        assert make.epoch(EPOCH, told[:count]) is plan
    assert sampler.asked == [EPOCH - 1, EPOCH]
    assert len(rows.drawn) == 2 + len(told), "each freeze regroups the rest once"
    assert same(planner(Noting()).epoch(EPOCH, told), plan)


def test_two_plans_are_kept_and_no_more() -> None:
    make = planner(Packing())
    first, second = make.epoch(0), make.epoch(1)
    assert make.epoch(0) is first
    make.epoch(2)
    assert make.epoch(0) is first, "the one that was asked for last stays"
    assert make.epoch(1) is not second


def test_the_length_of_a_run_is_settled_before_anything_is_frozen() -> None:
    make = planner(Packing())
    before = make.total_batches(2.5)
    make.epoch(0, [Freeze(1, 0, 1)])
    assert make.total_batches(2.5) == before


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@pytest.mark.parametrize(("world", "micro"), [(1, 3), (2, 1), (3, 2)])
def test_batches_after_a_freeze_hold_each_target_once(rows: RowBuilder, world: int, micro: int) -> None:
    """Down to the tensors: the tokens trained are those of the other tasks, under their names."""
    samples = samples_of(rows)
    epochs = SameSamples(samples, planner(rows))
    freezes = [Freeze(1, 0, BATCH)]
    plan, whole = epochs.epoch(0, freezes).plan, epochs.epoch(0).plan
    found: Counter[tuple[int, int]] = Counter()
    for index in range(BATCH, plan.num_batches):
        for rank in range(world):
            window = plan.window(index, rank, world, micro)
            assert window_counts(samples, plan.rows, window, 3)[0][1] == 0
            for batch in (collate(samples, plan.rows, rows_of, -1, plan.layout) for rows_of in window):
                found.update(zip(batch.target_ids.tolist(), batch.task_ids.tolist(), strict=True))
    expected = of_tasks(trained(whole, BATCH), samples.task, (0, 2))
    assert found == Counter(
        {(int(samples.starts[s]) + at, int(samples.task[s])): n for (s, at), n in expected.items()}
    )
