"""Law: loss and gradient of a step depend only on the global batch, not on how it is split."""

import pytest
import torch
import worlds
from worlds import NORMALIZATIONS, TOKEN_LOSSES, Split

from mftrun.launch import run_ranks

WEIGHTS = (1.0, 0.25, 3.0)


def run(split, ranks=1):
    return run_ranks(worlds.gradients, split, num_processes=ranks, log_file=None)


def assert_same(found, expected):
    gradients, record = found
    for name, gradient in expected[0].items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
    assert record == pytest.approx(expected[1], rel=1e-6)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_micro_batches_do_not_matter(normalization):
    whole = run(Split(normalization, 8))
    for size in (1, 2, 3):
        assert_same(run(Split(normalization, size)), whole)


@pytest.mark.parametrize("rows", ["packing", "padding_free"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_rows_of_whole_samples_do_not_matter(normalization, rows):
    whole = run(Split(normalization, 8))
    assert_same(run(Split(normalization, 2, rows)), whole)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_ranks_do_not_matter(normalization):
    split = Split(normalization, 2)
    assert any(worlds.lacks_a_task(split, rank, 2) for rank in range(2)), (
        "the case must include a rank without a task"
    )
    assert_same(run(split, ranks=2), run(Split(normalization, 8)))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_ranks_and_rows_do_not_matter_with_weighted_targets(normalization):
    whole = run(Split(normalization, 8, weights=WEIGHTS))
    assert_same(run(Split(normalization, 1, "padding_free", WEIGHTS), ranks=2), whole)
    unweighted = run(Split(normalization, 8))
    assert unweighted[1]["train/loss/large"] != pytest.approx(whole[1]["train/loss/large"], rel=1e-4)


@pytest.mark.parametrize("normalization", ["token_mean", "task_sample_mean"])
def test_micro_batches_of_cut_documents_do_not_matter(normalization):
    whole = run(Split(normalization, 8, "concat", WEIGHTS))
    assert_same(run(Split(normalization, 1, "concat", WEIGHTS)), whole)


FOCAL = [name for name in TOKEN_LOSSES if name.startswith("focal")]


@pytest.mark.parametrize("normalization", ["token_mean", "task_mean", "task_sample_mean"])
@pytest.mark.parametrize("token_loss", FOCAL)
def test_micro_batches_rows_and_ranks_do_not_matter_to_focal_losses(token_loss, normalization):
    """The third rank of three has no rows at all: packed, the eight samples are three."""
    whole = run(Split(normalization, 8, "padding", WEIGHTS, token_loss))
    assert_same(run(Split(normalization, 1, "padding", WEIGHTS, token_loss)), whole)
    assert_same(run(Split(normalization, 2, "packing", WEIGHTS, token_loss), ranks=3), whole)
    plain = run(Split(normalization, 8, "padding", WEIGHTS))
    assert whole[1]["train/loss"] < 0.99 * plain[1]["train/loss"]


def test_a_rank_without_rows_does_not_matter():
    """Packed, the eight samples are three rows: with micro-batches of two, the second rank has one row."""
    split = Split("task_mean", 2, "packing")
    assert_same(run(split, ranks=3), run(Split("task_mean", 8)))
