"""The router loss is that of the whole global batch, without its padding, however that batch is split."""

from dataclasses import replace

import pytest
import router_worlds
import torch
import worlds
from router_worlds import COEFFICIENT, Case
from worlds import Split

from mftrun.distributed import Fsdp, Zero
from mftrun.launch import run_ranks
from mftrun.losses.counts import Counts

STRATEGIES = {"fsdp": Fsdp(), "zero2": Zero(stage=2), "zero3": Zero(stage=3, persistence_threshold=0)}
WHOLE = Split("task_mean", 8, "padding_free")  # one micro-batch of one row, without any padding


def run(split, ranks=1, **case):
    return run_ranks(router_worlds.gradients, Case(split, **case), num_processes=ranks, log_file=None)


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


def test_looking_ahead_draws_no_dropout_masks():
    """Without a router loss nothing is looked at ahead; the tasks' losses tell the masks apart."""
    split = Split("task_mean", 3)
    with_router, without = (run(split, dropout=0.5, coefficient=one)[1] for one in (COEFFICIENT, 0.0))
    assert with_router["train/loss"] == pytest.approx(without["train/loss"], rel=1e-6)
    plain = run(split)[1]["train/loss"]
    assert with_router["train/loss"] != pytest.approx(plain, rel=1e-3), "dropout is idle"


@pytest.fixture(scope="module")
def alone():
    return run_ranks(router_worlds.steps, Case(WHOLE), num_processes=1, log_file=None)


@pytest.mark.parametrize("name", STRATEGIES)
def test_how_ranks_share_the_model_does_not_matter(name, alone):
    """Two micro-batches on each of two ranks: choices must be known before the first of them goes back."""
    if name.startswith("zero"):
        pytest.importorskip("deepspeed")
    case = Case(Split("task_mean", 2), strategy=replace(STRATEGIES[name], num_processes=2))
    found = run_ranks(router_worlds.steps, case, num_processes=2, log_file=None)
    for ours, theirs in zip(found, alone, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
        assert ours["train/router_loss"] > 0.1 * ours["train/loss"]
