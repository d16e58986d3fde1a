"""Whatever the lengths, targets, weights and rows: every token and target once, under its own task."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_samples import MemorySamples, joined

from mftrun.data.batch import Batch, collate, window_counts
from mftrun.data.mixture import Proportional
from mftrun.data.plan import EpochPlan, Planner
from mftrun.data.rows import Concat, Packing, Padding, PaddingFree, RowBuilder

MAX_LENGTH = 12
BUILDERS = [Packing(), Padding(2), PaddingFree(), PaddingFree(5), PaddingFree(30), Concat()]
PAD = -1


@st.composite
def sample_sets(draw: st.DrawFn, longest: int) -> MemorySamples:
    """Samples whose tokens are all different, of three tasks, with some tokens weighted targets."""
    weight = st.sampled_from([0.0, 0.0, 1.0, 1.0, 0.5, 2.0])
    made, first = [], 0
    for length in draw(st.lists(st.integers(1, longest), max_size=12)):
        weights = [0.0, *(draw(weight) for _ in range(length - 1))]
        made.append((range(first, first + length), weights, draw(st.integers(0, 2))))
        first += length
    return joined(made)


def plan_of(samples: MemorySamples, rows: RowBuilder, batch: int) -> EpochPlan:
    return Planner(samples.lengths, samples.task, Proportional(), rows, 0, batch, MAX_LENGTH).epoch(0)


def dealt(samples: MemorySamples, plan: EpochPlan, world: int, micro: int) -> list[Batch]:
    windows = [plan.window(at, rank, world, micro) for at in range(plan.num_batches) for rank in range(world)]
    return [collate(samples, plan.rows, rows, PAD, plan.layout) for window in windows for rows in window]


def expected_targets(samples: MemorySamples) -> Counter[tuple[int, ...]]:
    task = np.repeat(samples.task, samples.lengths)
    chosen = np.flatnonzero(samples.weights)
    columns = samples.tokens[chosen], samples.tokens[chosen] - 1, samples.weights[chosen], task[chosen]
    return Counter(zip(*(column.tolist() for column in columns), strict=True))


def trained_targets(batches: list[Batch]) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    for batch in batches:
        before = batch.input_ids.flatten()[batch.predict_from]
        columns = batch.target_ids, before, batch.target_weights, batch.task_ids
        found.update(zip(*(column.tolist() for column in columns), strict=True))
    return found


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4))
def test_every_target_once_with_its_task_and_weight(
    rows: RowBuilder, data: st.DataObject, batch: int, world: int, micro: int
) -> None:
    samples = data.draw(sample_sets(longest=40 if rows.splits_samples else MAX_LENGTH))
    plan = plan_of(samples, rows, batch)
    batches = dealt(samples, plan, world, micro)
    assert trained_targets(batches) == expected_targets(samples)


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4))
def test_every_token_once_but_for_the_copy_before_a_cut(
    rows: RowBuilder, data: st.DataObject, batch: int, world: int, micro: int
) -> None:
    samples = data.draw(sample_sets(longest=40 if rows.splits_samples else MAX_LENGTH))
    plan = plan_of(samples, rows, batch)
    tokens = [int(token) for one in dealt(samples, plan, world, micro) for token in one.input_ids.flatten()]
    seen = Counter(token for token in tokens if token != PAD)
    copies = Counter(int(first) for first in _continued(samples, plan))
    assert seen - copies == Counter(samples.tokens.tolist())
    assert rows.splits_samples or not copies


def _continued(samples: MemorySamples, plan: EpochPlan) -> list[int]:
    """First tokens of pieces that go on with a document: those already seen as the last of a piece before."""
    rows = plan.rows
    ends = Counter(zip(rows.samples.tolist(), (rows.starts + rows.sizes - 1).tolist(), strict=True))
    last = {(int(sample), int(samples.lengths[sample]) - 1) for sample in rows.samples}
    cut = [end for end, count in ends.items() for _ in range(count - (end in last))]
    return [int(samples.tokens[samples.starts[sample] + at]) for sample, at in cut]


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4))
def test_counts_are_those_of_the_samples(
    rows: RowBuilder, data: st.DataObject, batch: int, world: int, micro: int
) -> None:
    samples = data.draw(sample_sets(longest=MAX_LENGTH))
    plan = plan_of(samples, rows, batch)
    windows = [plan.window(at, rank, world, micro) for at in range(plan.num_batches) for rank in range(world)]
    tokens = sum((window_counts(samples, plan.rows, window, 3)[0] for window in windows), np.zeros(3))
    assert tokens.tolist() == np.bincount(samples.task, samples.target_weights, minlength=3).tolist()
    if not rows.splits_samples:
        found = sum((window_counts(samples, plan.rows, window, 3)[1] for window in windows), np.zeros(3))
        assert found.tolist() == np.bincount(samples.task, samples.target_weights > 0, minlength=3).tolist()
