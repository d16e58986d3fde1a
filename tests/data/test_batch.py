from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from memory_samples import MemorySamples, joined

from mftrun.data.batch import Batch, collate, window_counts
from mftrun.data.mixture import Proportional
from mftrun.data.plan import EpochPlan, Planner, evaluation_plan
from mftrun.data.rows import (
    Concat,
    Joined,
    Packing,
    Padded,
    Padding,
    PaddingFree,
    Pieces,
    RowBuilder,
    RowPlan,
    offsets,
)

Array = np.ndarray[Any, Any]
PAD = 99_999
WHOLE = [Packing(), Padding(), PaddingFree()]
BUILDERS = [*WHOLE, PaddingFree(7), Concat()]
SPLITS = [(1, 1), (1, 16), (2, 1), (2, 3), (3, 2), (16, 1)]  # ranks, micro-batch size


def make_store(lengths: Array, seed: int = 0, tasks: int = 4) -> MemorySamples:
    """Random targets, never the first token; about one sample in four has none, and task 3 none at all.

    Token n is n itself, so every token is recognized.
    """
    rng = np.random.default_rng(seed)
    starts = offsets(lengths)
    task = rng.integers(0, tasks, len(lengths)).astype(np.int32)
    targets = rng.random(starts[-1]) < 0.4
    owner = np.repeat(np.arange(len(lengths)), lengths)
    targets &= (rng.random(len(lengths)) < 0.75)[owner] & (task != 3)[owner]
    targets[starts[:-1]] = False
    weights = targets * rng.choice([1.0, 1.0, 0.25, 3.0], len(targets))
    return MemorySamples(np.arange(starts[-1], dtype=np.int32), weights.astype(np.float32), starts, task)


def random_store(seed: int, samples: int = 60) -> MemorySamples:
    return make_store(np.random.default_rng(seed).integers(1, 33, samples), seed)


def epoch_of(store: MemorySamples, rows: RowBuilder, batch: int = 16) -> EpochPlan:
    return Planner(store.lengths, store.task, Proportional(), rows, 0, batch, max_length=32).epoch(0)


def pieces_of(plan: RowPlan, row: int) -> list[tuple[int, int, int]]:
    own = slice(plan.row_ptr[row], plan.row_ptr[row + 1])
    return list(
        zip(plan.samples[own].tolist(), plan.starts[own].tolist(), plan.sizes[own].tolist(), strict=True)
    )


def slow_collate(store: MemorySamples, plan: EpochPlan, rows: Array) -> dict[str, list[Any]]:
    """The same batch, token by token."""
    made: dict[str, list[Any]] = {name: [] for name in ("input_ids", "position_ids", *TARGET_FIELDS)}
    flat = isinstance(plan.layout, Joined)
    length = int((plan.rows.lengths[rows].sum if flat else plan.rows.lengths[rows].max)())
    ids: list[int] = []
    positions: list[int] = []
    piece = -1
    for row in rows:
        for sample, start, size in pieces_of(plan.rows, int(row)):
            piece += 1
            at = store.starts[sample] + start
            weights = store.weights[at : at + size].astype(float)
            for position in range(size):
                if position and weights[position]:
                    made["predict_from"].append(len(ids) - 1)
                    made["target_ids"].append(int(store.tokens[at + position]))
                    made["target_weights"].append(weights[position])
                    made["task_ids"].append(int(store.task[sample]))
                    made["sample_ids"].append(sample)
                    made["piece_ids"].append(piece)
                    made["sample_sizes"].append(float(weights[1:].sum()))
                ids.append(int(store.tokens[at + position]))
                positions.append(position)
        while not flat and len(ids) % length:
            ids.append(PAD)
            positions.append(positions[-1] + 1)
    made["input_ids"] = [ids[at : at + length] for at in range(0, len(ids), length)]
    made["position_ids"] = [positions[at : at + length] for at in range(0, len(ids), length)]
    return made


INTEGERS = ("predict_from", "target_ids", "task_ids", "sample_ids", "piece_ids")
TARGET_FIELDS = (*INTEGERS, "target_weights", "sample_sizes")
DTYPES = {"target_weights": torch.float32, "sample_sizes": torch.float64}


def padding_in(batch: Batch) -> int:
    return int((batch.input_ids == PAD).sum())


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_batch_is_what_a_loop_over_tokens_makes(rows: RowBuilder, seed: int) -> None:
    store = random_store(seed)
    plan = epoch_of(store, rows)
    for micro in plan.window(0, 0, 1, 5):
        batch = collate(store, plan.rows, micro, PAD, plan.layout)
        for name, expected in slow_collate(store, plan, micro).items():
            tensor = getattr(batch, name)
            assert tensor.dtype == DTYPES.get(name, torch.int64)
            assert tensor.tolist() == expected, name
        assert batch.num_tokens == batch.input_ids.numel() - padding_in(batch)


HAND = joined(
    [
        ([10, 11, 12], [0, 1, 2.5], 2),
        ([20, 21], [0, 1], 0),
        ([30], [0], 1),
        ([40, 41, 42, 43], [0, 0.5, 0.5, 1], 1),
    ]
)


def test_a_packed_row_by_hand() -> None:
    whole = Pieces(np.array([1, 0, 2]), np.zeros(3, np.int64), np.array([2, 3, 1]))
    plan = RowPlan.of(whole, np.array([0, 2, 3]))
    assert plan.lengths.tolist() == [5, 1]
    batch = collate(HAND, plan, np.array([0, 1]), PAD, Padded())
    assert batch.input_ids.tolist() == [[20, 21, 10, 11, 12], [30, PAD, PAD, PAD, PAD]]
    assert batch.position_ids.tolist() == [[0, 1, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert batch.predict_from.tolist() == [0, 2, 3]
    assert batch.target_ids.tolist() == [21, 11, 12]
    assert batch.target_weights.tolist() == [1, 1, 2.5]
    assert batch.task_ids.tolist() == [0, 2, 2]
    assert batch.sample_ids.tolist() == [1, 0, 0]
    assert batch.piece_ids.tolist() == [0, 1, 1]
    assert batch.sample_sizes.tolist() == [1, 3.5, 3.5]
    assert batch.num_tokens == 6


def test_rows_end_to_end_by_hand() -> None:
    whole = Pieces(np.array([1, 0, 2]), np.zeros(3, np.int64), np.array([2, 3, 1]))
    batch = collate(HAND, RowPlan.of(whole, np.array([0, 2, 3])), np.array([1, 0]), PAD, Joined())
    assert batch.input_ids.tolist() == [[30, 20, 21, 10, 11, 12]]
    assert batch.position_ids.tolist() == [[0, 0, 1, 0, 1, 2]]
    assert batch.predict_from.tolist() == [1, 3, 4]
    assert batch.piece_ids.tolist() == [1, 2, 2]


def test_a_cut_document_by_hand() -> None:
    """The second piece repeats token 41, which only the first one trains; spans are clipped to each piece."""
    plan = RowPlan.of(Pieces(np.array([3, 3]), np.array([0, 1]), np.array([2, 3])), np.array([0, 1, 2]))
    batch = collate(HAND, plan, np.array([0, 1]), PAD, Padded())
    assert batch.input_ids.tolist() == [[40, 41, PAD], [41, 42, 43]]
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert batch.predict_from.tolist() == [0, 3, 4]
    assert batch.target_ids.tolist() == [41, 42, 43]
    assert batch.target_weights.tolist() == [0.5, 0.5, 1]
    assert batch.sample_ids.tolist() == [3, 3, 3]
    assert batch.piece_ids.tolist() == [0, 1, 1]
    assert batch.sample_sizes.tolist() == [0.5, 1.5, 1.5]
    tokens, samples = window_counts(HAND, plan, [np.array([0, 1])], 3)
    assert tokens.tolist() == [0, 2, 0]
    assert samples.tolist() == [0, 2, 0]


def test_a_repeated_sample_is_two_pieces() -> None:
    order = np.array([0, 0])
    plan = Packing().plan(HAND.lengths, order, 8)
    batch = collate(HAND, plan, np.array([0]), PAD, Padded())
    assert batch.sample_ids.tolist() == [0, 0, 0, 0]
    assert batch.piece_ids.tolist() == [0, 0, 1, 1]
    assert batch.sample_sizes.tolist() == [3.5] * 4


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
def test_predict_from_is_the_token_before_in_the_same_sample(rows: RowBuilder) -> None:
    store = random_store(1)
    plan = epoch_of(store, rows, batch=64)
    batch = collate(store, plan.rows, plan.rows_of(0), PAD, plan.layout)
    assert len(batch.target_ids) == (store.weights > 0).sum() > 0
    assert torch.equal(batch.input_ids.flatten()[batch.predict_from], batch.target_ids - 1)
    assert torch.equal(batch.input_ids.flatten()[batch.predict_from + 1], batch.target_ids)


@pytest.mark.parametrize("rows", [Packing(), Padding()], ids=str)
def test_padding_never_restarts_positions(rows: RowBuilder) -> None:
    store = random_store(2)
    plan = epoch_of(store, rows, batch=64)
    batch = collate(store, plan.rows, plan.rows_of(0), PAD, plan.layout)
    assert padding_in(batch) > 0
    starts = (batch.position_ids == 0).sum(1)
    assert starts.tolist() == np.diff(plan.rows.row_ptr).tolist()
    assert int(batch.position_ids.max()) < 32


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
def test_an_empty_micro_batch_is_one_padding_token(rows: RowBuilder) -> None:
    store = random_store(0)
    plan = epoch_of(store, rows)
    batch = collate(store, plan.rows, np.zeros(0, np.int64), PAD, plan.layout)
    assert batch.input_ids.tolist() == [[PAD]]
    assert batch.position_ids.tolist() == [[0]]
    assert [getattr(batch, name).tolist() for name in TARGET_FIELDS] == [[]] * 7
    assert all(getattr(batch, name).dtype == DTYPES.get(name, torch.int64) for name in TARGET_FIELDS)
    assert batch.num_tokens == 0


def test_padding_free_batches_have_no_padding() -> None:
    store = random_store(2)
    plan = epoch_of(store, PaddingFree(), batch=64)
    batch = collate(store, plan.rows, plan.rows_of(0), PAD, plan.layout)
    assert batch.input_ids.shape == (1, store.starts[-1])
    assert padding_in(batch) == 0


def batches(store: MemorySamples, plan: EpochPlan, index: int, world: int, micro: int) -> list[Batch]:
    windows = [plan.window(index, rank, world, micro) for rank in range(world)]
    return [collate(store, plan.rows, rows, PAD, plan.layout) for window in windows for rows in window]


def target_rows(made: list[Batch]) -> Counter[tuple[int, ...]]:
    names = ("target_ids", "target_weights", "task_ids", "sample_ids", "sample_sizes")
    columns = [torch.cat([getattr(batch, name) for batch in made]).tolist() for name in names]
    return Counter(zip(*columns, strict=True))


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_global_batch_is_the_same_for_every_split(rows: RowBuilder, seed: int) -> None:
    store = random_store(seed)
    plan = epoch_of(store, rows)
    for index in range(plan.num_batches):
        whole = batches(store, plan, index, 1, 1000)
        assert len(whole) == 1
        for world, micro in SPLITS:
            made = batches(store, plan, index, world, micro)
            assert target_rows(made) == target_rows(whole)
            assert sum(batch.num_tokens for batch in made) == whole[0].num_tokens


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_whole_samples_train_the_same_targets(seed: int) -> None:
    store = random_store(seed)
    plans = [epoch_of(store, rows, batch=1000) for rows in WHOLE]
    first, *others = (target_rows(batches(store, plan, 0, 1, 4)) for plan in plans)
    assert all(other == first for other in others)
    assert first.total() == (store.weights > 0).sum()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("world", [1, 3])
def test_all_rows_are_validated_alike(seed: int, world: int) -> None:
    """Every target with as many tokens before it, whatever the rows: so the losses are equal, too."""
    store = random_store(seed)
    found = []
    for rows in BUILDERS:
        plan = evaluation_plan(store.lengths, rows, 32)
        made = batches(store, plan, 0, world, 3)
        context = [batch.position_ids.flatten()[batch.predict_from] for batch in made]
        found.append((target_rows(made), Counter(zip(*_context(made, context), strict=True))))
    assert all(one == found[0] for one in found)
    assert found[0][0].total() == (store.weights > 0).sum()


def _context(made: list[Batch], context: list[torch.Tensor]) -> tuple[list[int], list[int]]:
    return torch.cat([batch.target_ids for batch in made]).tolist(), torch.cat(context).tolist()


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@pytest.mark.parametrize(("world", "micro"), SPLITS)
def test_counts_add_up_over_ranks(rows: RowBuilder, world: int, micro: int) -> None:
    store = random_store(4)
    plan = epoch_of(store, rows)
    for index in range(plan.num_batches):
        windows = [plan.window(index, rank, world, micro) for rank in range(world)]
        counts = np.sum([window_counts(store, plan.rows, window, 5) for window in windows], axis=0)
        made = batches(store, plan, index, world, micro)
        task = torch.cat([batch.task_ids for batch in made])
        weights = torch.cat([batch.target_weights for batch in made]).double()
        sizes = torch.cat([batch.sample_sizes for batch in made])
        assert counts[0].tolist() == torch.bincount(task, weights=weights, minlength=5).tolist()
        assert counts[1] == pytest.approx(torch.bincount(task, weights=weights / sizes, minlength=5).numpy())
        assert counts[0][3:].tolist() == [0, 0]
        assert counts[1][3:].tolist() == [0, 0]


def test_counts_of_an_empty_window() -> None:
    store = random_store(0)
    rows = epoch_of(store, Packing()).rows
    for window in ([], [np.zeros(0, np.int64)]):
        tokens, samples = window_counts(store, rows, window, 2)
        assert tokens.dtype == samples.dtype == np.float64
        assert tokens.tolist() == samples.tolist() == [0.0, 0.0]


def test_a_first_token_as_target_is_our_mistake() -> None:
    store = random_store(0)
    store.weights[store.starts[1]] = 1
    plan = epoch_of(store, Packing(), batch=64)
    with pytest.raises(AssertionError, match="first token"):
        collate(store, plan.rows, plan.rows_of(0), PAD, plan.layout)


def test_a_weight_of_zero_is_no_target() -> None:
    """A span that says 0 must neither count nor divide by its sum."""
    store = joined([([1, 2, 3], [0, 1, 1], 0)])
    silent = _Silent(store)
    plan = epoch_of(store, Packing())
    batch = collate(silent, plan.rows, plan.rows_of(0), PAD, plan.layout)
    assert batch.target_ids.tolist() == []
    assert [counts.tolist() for counts in window_counts(silent, plan.rows, [plan.rows_of(0)], 1)] == [
        [0],
        [0],
    ]


class _Silent(MemorySamples):
    def __init__(self, store: MemorySamples) -> None:
        super().__init__(store.tokens, store.weights, store.starts, store.task)

    @property
    def span_weight(self) -> Array:
        return np.zeros(len(self.span_start), np.float32)


def test_moving_a_batch_moves_every_tensor() -> None:
    store = random_store(0)
    plan = epoch_of(store, Packing())
    batch = collate(store, plan.rows, plan.rows_of(0), PAD, plan.layout)
    moved = batch.to("meta", non_blocking=True)
    for name in ("input_ids", "position_ids", *TARGET_FIELDS):
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == getattr(batch, name).shape
    assert moved.num_tokens == batch.num_tokens


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches_move_without_blocking() -> None:
    store = random_store(0)
    plan = epoch_of(store, Packing())
    batch = collate(store, plan.rows, plan.rows_of(0), PAD, plan.layout)
    pinned = batch.pin()
    assert pinned.input_ids.is_pinned()
    assert torch.equal(pinned.to("cuda", non_blocking=True).input_ids.cpu(), batch.input_ids)
