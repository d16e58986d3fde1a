from collections import Counter
from typing import Any

import numpy as np
import pytest

from mftrun.data.rows import (
    Concat,
    Packing,
    Padding,
    PaddingFree,
    Pieces,
    RowBuilder,
    RowPlan,
    SplitPacking,
    offsets,
    ranges,
)
from mftrun.errors import ConfigError

WHOLE = [Packing(), Padding(), Padding(group_factor=1), PaddingFree(), PaddingFree(30), PaddingFree(200)]
BUILDERS = [*WHOLE, Concat(), SplitPacking()]


def random_lengths(seed: int, longest: int = 64) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(1, longest + 1, rng.integers(0, 300)).astype(np.int64)


def segments(plan: RowPlan) -> list[list[int]]:
    return [[sample for sample, _, _ in row] for row in pieces(plan)]


def pieces(plan: RowPlan) -> list[list[tuple[int, int, int]]]:
    """Sample, start and size of each piece, row by row."""
    triples = list(zip(plan.samples.tolist(), plan.starts.tolist(), plan.sizes.tolist(), strict=True))
    pairs = zip(plan.row_ptr[:-1], plan.row_ptr[1:], strict=True)
    return [triples[start:stop] for start, stop in pairs]


@pytest.mark.parametrize("builder", WHOLE, ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_every_entry_of_the_order_is_in_exactly_one_row(builder: RowBuilder, seed: int) -> None:
    lengths = random_lengths(seed)
    rng = np.random.default_rng(seed)
    # Some samples left out, some twice: what samplers that repeat or thin tasks ask for.
    order = rng.integers(0, len(lengths), 250) if len(lengths) else np.zeros(0, np.int64)
    plan = builder.plan(lengths, order, 64)
    rows = segments(plan)
    assert sorted(sample for row in rows for sample in row) == sorted(order.tolist())
    assert all(rows)
    assert plan.lengths.tolist() == [sum(lengths[row]) for row in rows]
    assert plan.num_rows == len(rows)
    assert not plan.starts.any()
    assert np.array_equal(plan.sizes, lengths[plan.samples])
    budget = getattr(builder, "tokens", None) or 64
    assert all(sum(lengths[row]) <= budget or len(row) == 1 for row in rows)


@pytest.mark.parametrize("builder", BUILDERS, ids=str)
@pytest.mark.parametrize(("count", "batch"), [(0, 4), (3, 4), (4, 4), (61, 4), (640, 4), (7, 1)])
def test_arranging_keeps_every_row(builder: RowBuilder, count: int, batch: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 64, count)
    arranged = builder.arrange(lengths, batch, np.random.default_rng(1))
    assert sorted(arranged.tolist()) == list(range(count))
    again = builder.arrange(lengths, batch, np.random.default_rng(1))
    assert np.array_equal(arranged, again)
    if count > 50 and isinstance(builder, Packing | Padding):
        other = builder.arrange(lengths, batch, np.random.default_rng(2))
        assert not np.array_equal(arranged, other)


@pytest.mark.parametrize("builder", WHOLE, ids=str)
@pytest.mark.parametrize("bad", [0, 65])
def test_lengths_that_preparing_refuses_are_our_mistake(builder: RowBuilder, bad: int) -> None:
    with pytest.raises(AssertionError, match="preparing"):
        builder.plan(np.array([3, bad]), np.array([0, 1]), 64)
    builder.plan(np.array([3, bad]), np.array([0]), 64)  # not asked for: nobody's mistake


def naive_best_fit(lengths: list[int], capacity: int) -> list[int]:
    """Spaces left by textbook best fit decreasing."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, space in enumerate(spaces) if space >= length]
        if fitting:
            best = min(fitting, key=lambda i: spaces[i])
            spaces[best] -= length
        else:
            spaces.append(capacity - length)
    return sorted(spaces)


@pytest.mark.parametrize("seed", range(12))
def test_packing_is_best_fit_decreasing(seed: int) -> None:
    lengths = random_lengths(seed)
    plan = Packing().plan(lengths, np.arange(len(lengths)), 64)
    assert sorted((64 - plan.lengths).tolist()) == naive_best_fit(lengths.tolist(), 64)


@pytest.mark.parametrize("shape", ["uniform", "lognormal"])
def test_packing_fills_rows(shape: str) -> None:
    rng = np.random.default_rng(0)
    uniform = rng.integers(1, 4097, 100_000)
    lognormal = np.clip(rng.lognormal(6, 1, 100_000).astype(np.int64), 8, 4096)
    lengths = {"uniform": uniform, "lognormal": lognormal}[shape]
    plan = Packing().plan(lengths, np.arange(len(lengths)), 4096)
    assert lengths.sum() / (plan.num_rows * 4096) >= 0.995


def test_packing_follows_the_order_among_equal_lengths() -> None:
    """What makes one epoch's rows differ from the next one's."""
    lengths = np.full(40, 16)
    order = np.random.default_rng(0).permutation(40)
    assert segments(Packing().plan(lengths, order, 64)) == order.reshape(10, 4).tolist()


def test_packed_rows_are_trained_in_no_order_of_length() -> None:
    lengths = np.arange(1, 1001)[::-1]
    halves = np.split(lengths[Packing().arrange(lengths, 8, np.random.default_rng(0))], 2)
    assert abs(halves[0].mean() - halves[1].mean()) < 60


def padding_share(lengths: np.ndarray[Any, Any], batch: int) -> float:
    whole = lengths[: len(lengths) // batch * batch].reshape(-1, batch)
    return float(1 - whole.sum() / (whole.max(1) * batch).sum())


def test_padding_groups_lengths_into_batches() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 4003)
    grouped = lengths[Padding(group_factor=50).arrange(lengths, 8, np.random.default_rng(0))]
    assert padding_share(grouped, 8) < 0.05 < 0.3 < padding_share(lengths, 8)
    assert grouped[-3:].tolist() == lengths[-3:].tolist()  # the smaller batch is of any length


def test_padding_mixes_long_and_short_batches() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 4000)
    grouped = lengths[Padding().arrange(lengths, 8, np.random.default_rng(0))]
    means = grouped.reshape(-1, 8).mean(1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2


def test_taking_rows_reorders_whole_rows() -> None:
    lengths = random_lengths(3)
    plan = Packing().plan(lengths, np.arange(len(lengths)), 64)
    chosen = np.array([5, 0, 5, 2])
    taken = plan.take(chosen)
    rows = segments(plan)
    assert segments(taken) == [rows[i] for i in chosen]
    assert taken.lengths.tolist() == plan.lengths[chosen].tolist()
    found, counts = plan.pieces(chosen)
    assert found.samples.tolist() == taken.samples.tolist()
    assert found.sizes.tolist() == taken.sizes.tolist()
    assert counts.tolist() == [len(rows[i]) for i in chosen]


def test_concat_by_hand() -> None:
    """Rows of 4: a cut document goes on behind a copy of its last token, a border needs none."""
    plan = Concat().plan(np.array([6, 3, 9, 1]), np.array([1, 0, 3, 2]), 4)
    assert pieces(plan) == [
        [(1, 0, 3), (0, 0, 1)],
        [(0, 0, 4)],
        [(0, 3, 3), (3, 0, 1)],
        [(2, 0, 4)],
        [(2, 3, 4)],
        [(2, 6, 3)],
    ]
    assert plan.lengths.tolist() == [4, 4, 4, 4, 4, 3]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("max_length", [2, 3, 17, 64])
def test_concat_loses_no_token_and_fills_every_row_but_the_last(seed: int, max_length: int) -> None:
    lengths = random_lengths(seed, longest=40)
    order = np.random.default_rng(seed).permutation(len(lengths))
    plan = Concat().plan(lengths, order, max_length)
    seen: list[tuple[int, int]] = []
    for sample, start, size in (piece for row in pieces(plan) for piece in row):
        is_continued = bool(seen) and seen[-1] == (sample, start)
        seen += [(sample, start + at) for at in range(is_continued, size)]
    assert seen == [(sample, at) for sample in order.tolist() for at in range(lengths[sample])]
    assert set(plan.lengths[:-1].tolist()) <= {max_length}
    assert all(0 < length <= max_length for length in plan.lengths)


def test_concat_needs_space_for_a_repeated_token() -> None:
    with pytest.raises(ConfigError) as caught:
        Concat().plan(np.array([3]), np.array([0]), 1)
    assert caught.value.key == "data.max_length"


def test_only_what_is_longer_than_a_row_is_cut_for_evaluation() -> None:
    builder = Concat().for_evaluation
    assert builder.splits_samples
    lengths = np.array([64, 65, 3, 200, 1, 127, 128])
    plan = builder.plan(lengths, np.arange(7), 64)
    found: dict[int, list[tuple[int, int]]] = {}
    for sample, start, size in sorted(piece for row in pieces(plan) for piece in row):
        found.setdefault(sample, []).append((start, size))
    assert found == {
        0: [(0, 64)],
        1: [(0, 64), (63, 2)],
        2: [(0, 3)],
        3: [(0, 64), (63, 64), (126, 64), (189, 11)],
        4: [(0, 1)],
        5: [(0, 64), (63, 64)],
        6: [(0, 64), (63, 64), (126, 2)],
    }
    assert plan.lengths.max() <= 64


def test_padding_free_is_next_fit_in_the_sampler_s_order() -> None:
    lengths = np.array([4, 5, 2, 12, 1, 9])
    order = np.array([1, 0, 2, 3, 4, 5])
    assert segments(PaddingFree(10).plan(lengths, order, 64)) == [[1, 0], [2], [3], [4, 5]]
    assert segments(PaddingFree().plan(lengths, order, 12)) == [[1, 0, 2], [3], [4, 5]]
    assert PaddingFree(10).arrange(lengths, 2, np.random.default_rng(0)).tolist() == list(range(6))


@pytest.mark.parametrize("tokens", [0, -1])
def test_an_impossible_budget_is_refused(tokens: int) -> None:
    with pytest.raises(ConfigError) as caught:
        PaddingFree(tokens)
    assert caught.value.key == "rows.tokens"


def test_only_builders_that_split_take_longer_samples() -> None:
    assert [builder.splits_samples for builder in (Packing(), Padding(), PaddingFree(), Concat())] == [
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("builder", BUILDERS, ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_rows_can_be_made_of_the_pieces_of_others(builder: RowBuilder, seed: int) -> None:
    """Without every third piece, as when a task is frozen: each target of the others once, in full rows."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 200 if builder.splits_samples else 65, 80)
    made = builder.plan(lengths, rng.permutation(80), 64)
    kept, _ = made.pieces(np.arange(made.num_rows))
    kept = kept.take(kept.samples % 3 > 0)
    again = builder.place(kept, 64)
    assert targets_of(again) == Counter(
        (sample, at) for sample in range(80) if sample % 3 for at in range(1, lengths[sample])
    )
    assert set(again.samples.tolist()) == set(kept.samples.tolist())
    assert again.num_rows <= made.num_rows
    assert all(pieces(again))


@pytest.mark.parametrize("max_length", [2, 3, 17])
def test_concat_again_is_concat_of_what_is_left(max_length: int) -> None:
    """Cuts are undone before new ones are made: nothing is cut twice, and no context lost for good."""
    lengths = random_lengths(1, longest=40)
    lengths[::3] = 1
    order = np.random.default_rng(1).integers(0, len(lengths), 150)  # some samples twice, even in a row
    order = np.repeat(order, 1 + (lengths[order] < 3))
    made = Concat().plan(lengths, order, max_length)
    everything, _ = made.pieces(np.arange(made.num_rows))
    assert pieces(Concat().place(everything, max_length)) == pieces(made)
    kept = everything.take(everything.samples % 2 > 0)
    expected = Concat().plan(lengths, order[order % 2 > 0], max_length)
    assert pieces(Concat().place(kept, max_length)) == pieces(expected)


def test_a_document_of_one_token_may_come_twice_in_a_row() -> None:
    plan = Concat().plan(np.array([1, 5]), np.array([0, 0, 1]), 4)
    assert pieces(plan) == [[(0, 0, 1), (0, 0, 1), (1, 0, 2)], [(1, 1, 4)]]


def test_concat_goes_on_inside_a_document() -> None:
    plan = Concat().place(Pieces(*np.array([[2, 2, 0], [3, 6, 0], [4, 3, 2]])), 5)
    assert pieces(plan) == [[(2, 3, 5)], [(2, 7, 2), (0, 0, 2)]]


def targets_of(plan: RowPlan) -> Counter[tuple[int, int]]:
    """Sample and place of every token that is predicted from the one before it."""
    found = (piece for row in pieces(plan) for piece in row)
    return Counter((sample, start + at) for sample, start, size in found for at in range(1, size))


def test_plans_are_joined_row_by_row() -> None:
    one = Packing().plan(np.array([5, 60, 4]), np.arange(3), 64)
    other = Padding().plan(np.array([7, 9]), np.arange(2), 64)
    both = one.followed_by(other)
    assert pieces(both) == pieces(one) + pieces(other)
    assert both.lengths.tolist() == [*one.lengths.tolist(), 7, 9]
    nothing = one.take(np.zeros(0, np.int64))
    assert pieces(nothing.followed_by(one)) == pieces(one.followed_by(nothing)) == pieces(one)


def test_ranges_and_offsets() -> None:
    assert ranges(np.array([7, 0, 3]), np.array([2, 0, 3])).tolist() == [7, 8, 3, 4, 5]
    assert ranges(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
    assert offsets(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert offsets(np.zeros(0, np.int64)).tolist() == [0]
