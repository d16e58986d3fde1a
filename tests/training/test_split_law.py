"""Law: loss and gradient of a step depend only on the global batch, not on how it is split."""

import pytest
import torch
import worlds
from worlds import NORMALIZATIONS, Split

from mftrun.launch import run_ranks


@pytest.fixture
def store(tmp_path):
    worlds.write_store(tmp_path / "store")
    return tmp_path / "store"


def run(split, ranks=1):
    return run_ranks(worlds.gradients, split, num_processes=ranks, log_file=None)


def assert_same(found, expected):
    gradients, record = found
    for name, gradient in expected[0].items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
    assert record == pytest.approx(expected[1], rel=1e-6)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_micro_batches_do_not_matter(store, normalization):
    whole = run(Split(store, normalization, 8))
    for size in (1, 2, 3):
        assert_same(run(Split(store, normalization, size)), whole)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_packing_does_not_matter(store, normalization):
    whole = run(Split(store, normalization, 8))
    packed = run(Split(store, normalization, 2, packed=True))
    assert_same(packed, whole)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_ranks_do_not_matter(store, normalization):
    split = Split(store, normalization, 2)
    assert any(worlds.lacks_a_task(split, rank, 2) for rank in range(2)), (
        "the case must include a rank without a task"
    )
    assert_same(run(split, ranks=2), run(Split(store, normalization, 8)))


def test_a_rank_without_rows_does_not_matter(store):
    """Packed, the eight samples are three rows: with micro-batches of two, the second rank has one row."""
    split = Split(store, "task_mean", 2, packed=True)
    assert_same(run(split, ranks=3), run(Split(store, "task_mean", 8)))
