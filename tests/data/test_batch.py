from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mftrun.data.batch import Batch, collate, window_counts
from mftrun.data.mixture import Proportional
from mftrun.data.plan import EpochPlan, Planner
from mftrun.data.rows import Packing, Padding, RowBuilder, RowPlan, offsets
from mftrun.data.sample import Origin
from mftrun.data.store import Entry, TokenStore

Array = np.ndarray[Any, Any]
PAD = 99_999
BUILDERS = [Packing(), Padding()]
SPLITS = [(1, 1), (1, 16), (2, 1), (2, 3), (3, 2), (16, 1)]  # ranks, micro-batch size


@dataclass(frozen=True)
class Store:
    """A token store in memory. Token n is n itself, so every token of the store is recognized."""

    tokens: Array
    targets: Array
    offsets: Array
    task: Array

    @property
    def lengths(self) -> Array:
        return np.diff(self.offsets)

    @property
    def target_counts(self) -> Array:
        return np.array(
            [self.targets[a:b].sum() for a, b in zip(self.offsets, self.offsets[1:], strict=False)]
        )


def make_store(lengths: Array, seed: int = 0, tasks: int = 4) -> Store:
    """Random targets, never the first token; about one sample in four has none, and task 3 none at all."""
    rng = np.random.default_rng(seed)
    starts = offsets(lengths)
    task = rng.integers(0, tasks, len(lengths)).astype(np.int32)
    targets = rng.random(starts[-1]) < 0.4
    owner = np.repeat(np.arange(len(lengths)), lengths)
    targets &= (rng.random(len(lengths)) < 0.75)[owner] & (task != 3)[owner]
    targets[starts[:-1]] = False
    return Store(np.arange(starts[-1], dtype=np.int32), targets, starts, task)


def random_store(seed: int, samples: int = 60) -> Store:
    return make_store(np.random.default_rng(seed).integers(1, 33, samples), seed)


def epoch_of(store: Store, rows: RowBuilder, batch: int = 16) -> EpochPlan:
    return Planner(store.lengths, store.task, Proportional(), rows, 0, batch, max_length=32).epoch(0)


def segments_of(plan: RowPlan, row: int) -> list[int]:
    return [int(s) for s in plan.samples[plan.row_ptr[row] : plan.row_ptr[row + 1]]]


def slow_collate(store: Store, plan: RowPlan, rows: Array) -> dict[str, list[Any]]:
    """The same batch, token by token."""
    length = max(int(plan.lengths[row]) for row in rows)
    made: dict[str, list[Any]] = {name: [] for name in ("input_ids", "position_ids", *TARGET_FIELDS)}
    for place, row in enumerate(rows):
        ids: list[int] = []
        positions: list[int] = []
        for sample in segments_of(plan, row):
            span = range(store.offsets[sample], store.offsets[sample + 1])
            for position, at in enumerate(span):
                if store.targets[at]:
                    made["predict_from"].append(place * length + len(ids) - 1)
                    made["target_ids"].append(int(store.tokens[at]))
                    made["task_ids"].append(int(store.task[sample]))
                    made["sample_ids"].append(sample)
                    made["sample_sizes"].append(int(store.targets[span.start : span.stop].sum()))
                ids.append(int(store.tokens[at]))
                positions.append(position)
        while len(ids) < length:
            ids.append(PAD)
            positions.append(positions[-1] + 1)
        made["input_ids"].append(ids)
        made["position_ids"].append(positions)
    return made


TARGET_FIELDS = ("predict_from", "target_ids", "task_ids", "sample_ids", "sample_sizes")


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_batch_is_what_a_loop_over_tokens_makes(rows: RowBuilder, seed: int) -> None:
    store = random_store(seed)
    plan = epoch_of(store, rows)
    for micro in plan.window(0, 0, 1, 5):
        batch = collate(store, plan.rows, micro, PAD)
        for name, expected in slow_collate(store, plan.rows, micro).items():
            tensor = getattr(batch, name)
            assert tensor.dtype == torch.int64
            assert tensor.tolist() == expected, name
        assert batch.num_tokens == int((batch.input_ids != PAD).sum())
        assert batch.num_padding == int((batch.input_ids == PAD).sum())
        assert batch.num_targets == len(batch.target_ids)


def test_a_packed_row_by_hand() -> None:
    store = Store(
        tokens=np.array([10, 11, 12, 20, 21, 30], np.int32),
        targets=np.array([0, 1, 1, 0, 1, 0], bool),
        offsets=np.array([0, 3, 5, 6]),
        task=np.array([2, 0, 1], np.int32),
    )
    plan = RowPlan(np.array([0, 2, 3]), np.array([1, 0, 2]), np.array([5, 1]))
    batch = collate(store, plan, np.array([0, 1]), PAD)
    assert batch.input_ids.tolist() == [[20, 21, 10, 11, 12], [30, PAD, PAD, PAD, PAD]]
    assert batch.position_ids.tolist() == [[0, 1, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert batch.predict_from.tolist() == [0, 2, 3]
    assert batch.target_ids.tolist() == [21, 11, 12]
    assert batch.task_ids.tolist() == [0, 2, 2]
    assert batch.sample_ids.tolist() == [1, 0, 0]
    assert batch.sample_sizes.tolist() == [1, 2, 2]
    assert (batch.num_tokens, batch.num_padding, batch.num_targets) == (6, 4, 3)


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
def test_predict_from_is_the_token_before_in_the_same_sample(rows: RowBuilder) -> None:
    store = random_store(1)
    plan = epoch_of(store, rows, batch=64)
    batch = collate(store, plan.rows, plan.rows_of(0), PAD)
    assert batch.num_targets == store.targets.sum() > 0
    assert torch.equal(batch.input_ids.flatten()[batch.predict_from], batch.target_ids - 1)
    assert torch.equal(batch.input_ids.flatten()[batch.predict_from + 1], batch.target_ids)


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
def test_padding_never_restarts_positions(rows: RowBuilder) -> None:
    store = random_store(2)
    plan = epoch_of(store, rows, batch=64)
    batch = collate(store, plan.rows, plan.rows_of(0), PAD)
    assert batch.num_padding > 0
    starts = (batch.position_ids == 0).sum(1)
    assert starts.tolist() == np.diff(plan.rows.row_ptr).tolist()
    assert int(batch.position_ids.max()) < 32


@pytest.mark.parametrize("rows", BUILDERS, ids=str)
def test_an_empty_micro_batch_is_one_padding_token(rows: RowBuilder) -> None:
    store = random_store(0)
    batch = collate(store, epoch_of(store, rows).rows, np.zeros(0, np.int64), PAD)
    assert batch.input_ids.tolist() == [[PAD]]
    assert batch.position_ids.tolist() == [[0]]
    assert [getattr(batch, name).tolist() for name in TARGET_FIELDS] == [[]] * 5
    assert all(getattr(batch, name).dtype == torch.int64 for name in TARGET_FIELDS)
    assert (batch.num_tokens, batch.num_padding, batch.num_targets) == (0, 1, 0)


def batches(store: Store, plan: EpochPlan, index: int, world: int, micro: int) -> list[Batch]:
    windows = [plan.window(index, rank, world, micro) for rank in range(world)]
    return [collate(store, plan.rows, rows, PAD) for window in windows for rows in window]


def target_rows(made: list[Batch]) -> Counter[tuple[int, ...]]:
    names = ("target_ids", "task_ids", "sample_ids", "sample_sizes")
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
def test_packed_and_padded_epochs_train_the_same_targets(seed: int) -> None:
    store = random_store(seed)
    plans = [epoch_of(store, rows, batch=1000) for rows in BUILDERS]
    packed, padded = (target_rows(batches(store, plan, 0, 1, 4)) for plan in plans)
    assert packed == padded
    assert packed.total() == store.targets.sum()


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
        sizes = torch.cat([batch.sample_sizes for batch in made]).double()
        assert counts[0].tolist() == torch.bincount(task, minlength=5).tolist()
        assert counts[1] == pytest.approx(torch.bincount(task, weights=1 / sizes, minlength=5).numpy())
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
    store.targets[store.offsets[1]] = True
    plan = epoch_of(store, Packing(), batch=64)
    with pytest.raises(AssertionError, match="first token"):
        collate(store, plan.rows, plan.rows_of(0), PAD)


def test_collating_from_a_token_store_on_disk(tmp_path: Path) -> None:
    store = random_store(5)
    spans = zip(store.offsets, store.offsets[1:], store.task, strict=False)
    entries = [Entry(store.tokens[a:b], store.targets[a:b], int(k), Origin("made", 0)) for a, b, k in spans]
    mapped = TokenStore.write(tmp_path / "train", entries, tasks=["a", "b", "c", "d"])
    plan = epoch_of(store, Packing(), batch=64)
    ours, theirs = (collate(source, plan.rows, plan.rows_of(0), PAD) for source in (store, mapped))
    assert torch.equal(ours.input_ids, theirs.input_ids)
    assert target_rows([ours]) == target_rows([theirs])
    counts = [window_counts(source, plan.rows, [plan.rows_of(0)], 4) for source in (store, mapped)]
    assert np.array_equal(counts[0], counts[1])
    theirs.input_ids.zero_()  # a batch is the caller's own, never a view of the read-only file


def test_moving_a_batch_moves_every_tensor() -> None:
    store = random_store(0)
    plan = epoch_of(store, Packing())
    batch = collate(store, plan.rows, plan.rows_of(0), PAD)
    moved = batch.to("meta", non_blocking=True)
    for name in ("input_ids", "position_ids", *TARGET_FIELDS):
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == getattr(batch, name).shape
    assert moved.num_tokens == batch.num_tokens
    assert moved.num_targets == batch.num_targets
    assert moved.num_padding == batch.num_padding


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches_move_without_blocking() -> None:
    store = random_store(0)
    plan = epoch_of(store, Packing())
    batch = collate(store, plan.rows, plan.rows_of(0), PAD)
    pinned = batch.pin()
    assert pinned.input_ids.is_pinned()
    assert torch.equal(pinned.to("cuda", non_blocking=True).input_ids.cpu(), batch.input_ids)
