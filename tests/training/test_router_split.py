"""The router loss is that of the whole global batch, without its padding, however that batch is split."""

import pytest
import router_worlds
import torch
import worlds
from router_worlds import COEFFICIENT
from worlds import Split

from mftrun.launch import run_ranks
from mftrun.losses.counts import Counts

WHOLE = Split("task_mean", 8, "padding_free")  # one micro-batch of one row, without any padding


def run(split, ranks=1, coefficient=COEFFICIENT):
    return run_ranks(router_worlds.gradients, (split, coefficient), num_processes=ranks, log_file=None)


def assert_same(found, expected):
    for name, gradient in expected[0].items():
        torch.testing.assert_close(found[0][name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert found[1] == pytest.approx(expected[1], rel=1e-5)


@pytest.fixture(scope="module")
def whole():
    return run(WHOLE)


def own():
    """Gradients of the loss that transformers' own function adds, and that part of the loss."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    feed = worlds.feed_of(WHOLE, 0, 1)
    (batch,) = feed.window(0, 0)
    assert batch.num_tokens == batch.input_ids.numel()
    targets, samples, *_ = feed.ballot(0, 0)
    counts = Counts(torch.from_numpy(targets), torch.from_numpy(samples))
    model = router_worlds.mixtral()
    out = model.model(
        batch.input_ids, position_ids=batch.position_ids, use_cache=False, output_router_logits=True
    )
    logits = model.lm_head(out[0]).flatten(0, 1)[batch.predict_from]
    nll = torch.nn.functional.cross_entropy(logits, batch.target_ids, reduction="none")
    tasks = worlds.objective_of(WHOLE).loss(
        nll, batch.task_ids, batch.piece_ids, batch.sample_sizes, counts, batch.target_weights
    )
    router = COEFFICIENT * load_balancing_loss_func(out.router_logits, 4, 2)
    (tasks + router).backward()
    return {f"model.{name}": p.grad for name, p in model.named_parameters()}, float(router), float(tasks)


def test_a_batch_without_padding_has_the_models_own_loss(whole):
    gradients, router, tasks = own()
    assert whole[1]["train/router_loss"] == pytest.approx(router, rel=1e-5)
    assert whole[1]["train/loss"] == pytest.approx(tasks, rel=1e-5)
    assert_same((whole[0], {}), (gradients, {}))


@pytest.mark.parametrize("size", [8, 3, 1])
def test_neither_padding_nor_micro_batches_matter(size, whole):
    assert_same(run(Split("task_mean", size)), whole)


@pytest.mark.parametrize(("rows", "size"), [("packing", 2), ("padding_free", 1)])
def test_packing_does_not_matter(rows, size, whole):
    assert_same(run(Split("task_mean", size, rows)), whole)


@pytest.mark.parametrize("size", [4, 1])
def test_ranks_do_not_matter(size, whole):
    """With micro-batches of 4 each rank has one, whose choices are exchanged before its backward pass."""
    assert_same(run(Split("task_mean", size), ranks=2), whole)


def test_a_rank_without_rows_does_not_matter(whole):
    assert_same(run(Split("task_mean", 2, "packing"), ranks=3), whole)


def test_losses_that_need_statistics_share_the_first_pass():
    split = Split("task_mean", 3, token_loss="focal_task")
    assert_same(run(split), run(Split("task_mean", 8, "padding_free", token_loss="focal_task")))


def test_a_coefficient_of_zero_leaves_it_out(whole):
    gradients, record = run(WHOLE, coefficient=0.0)
    assert "train/router_loss" not in record
    name = "model.model.layers.0.mlp.gate.weight"
    assert not torch.allclose(gradients[name], whole[0][name], rtol=0.1)
