"""What one strategy and number of ranks has saved, any other resumes from, bit by bit."""

from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import pytest
import torch
from runs import assert_same_tensors
from torch import distributed
from torch.distributed.tensor import DTensor
from worlds import engine_of, llama

from mftrun.distributed import Ddp, Fsdp, Zero
from mftrun.launch import run_ranks
from mftrun.models.with_nll import ModelWithNll
from mftrun.training import tensors
from mftrun.training.optimizers import AdamW

# Small weights are divided, too; a step is large enough to move every one of them.
_ZERO = partial(Zero, bucket_size=1000)
STRATEGIES = {
    "ddp": Ddp(),
    "fsdp": Fsdp(),
    "zero1": _ZERO(stage=1),
    "zero2": _ZERO(stage=2),
    "zero3": _ZERO(stage=3, persistence_threshold=0),
}
# Three sources for each: one that divides nothing, one that cuts by rows and one that cuts flat stretches.
FROM = {
    "ddp": ("one", "fsdp", "zero3"),
    "fsdp": ("one", "ddp", "zero2"),
    "zero1": ("ddp", "fsdp", "zero2"),
    "zero2": ("ddp", "fsdp", "zero3"),
    "zero3": ("one", "fsdp", "zero1"),
}
FROM_MORE = {"fsdp": ("zero3",), "zero3": ("fsdp", "zero2")}
IDS = torch.arange(12).view(1, 12)


def engine(strategy):
    options = {"precision": "fp32", "max_grad_norm": None}
    return strategy.engine(strategy.join("fp32"), ModelWithNll(llama()), AdamW(lr=0.01), **options)


def nll(trained):
    return trained.model(IDS, IDS, torch.arange(11), IDS.flatten()[1:]).nll.sum()


def step(trained, weight=1.0):
    with trained.micro_step(is_last=True):
        trained.backward(nll(trained) * weight / trained.ranks.count)
    trained.step(0.01)


def value(trained):
    with torch.no_grad():
        return float(nll(trained))


def save(trained, folder, *, background=False):
    writing = tensors.Writing(trained, folder / tensors.FOLDER, background=background)
    written = tensors.gathered(writing.wait())
    if trained.ranks.is_main:
        writing.finish(written)
    trained.ranks.wait()


def take_up(trained, folder, **options):
    tensors.read_tensors(trained, folder / tensors.FOLDER, **options)


@contextmanager
def without_gathering():
    with (
        patch.object(DTensor, "full_tensor", side_effect=AssertionError),
        patch.object(DTensor, "redistribute", side_effect=AssertionError),
        patch.object(distributed, "all_gather_into_tensor", side_effect=AssertionError),
        patch.object(distributed, "all_gather", side_effect=AssertionError),
        patch.object(distributed, "broadcast", side_effect=AssertionError),
    ):
        yield


def saved(trained, folder):
    """Two steps, a checkpoint, and one step more, in which the loss is another."""
    step(trained), step(trained)
    with without_gathering():
        save(trained, folder)
    before = value(trained)
    step(trained, 2.0)
    return before, value(trained)


def saved_by_all(context, folder):
    """Each strategy saves, and then takes up what others have saved, without having trained as they had."""
    losses = {name: saved(engine(strategy), folder / name) for name, strategy in STRATEGIES.items()}
    return losses, taken_up(context, folder, FROM)


def taken_up(context, folder, sources):
    losses = {}
    for name, names in sources.items():
        trained = engine(STRATEGIES[name])
        for source in names:
            step(trained, -1.0)
            take_up(trained, folder / source)
            again = folder / f"{name}-of-{source}-by-{context.world_size}"
            save(trained, again, background=True)
            before = value(trained)
            step(trained, 2.0)
            losses[name, source] = before, value(trained)
    return losses


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """A folder of checkpoints, by name, and the losses with which they were saved and taken up."""
    folder = tmp_path_factory.mktemp("tensors")
    losses = {"one": saved(engine_of(1, ModelWithNll(llama()), AdamW(lr=0.01)), folder / "one")}
    own, others = run_ranks(saved_by_all, folder, num_processes=2, log_file=None)
    return folder, {**losses, **own}, others


def test_all_strategies_save_the_same_run(by_two):
    _, losses, _ = by_two
    assert losses == {name: pytest.approx(losses["one"], rel=1e-5) for name in losses}


@pytest.mark.parametrize("strategy", FROM)
def test_what_was_saved_comes_back_under_other_strategies(by_two, strategy):
    folder, losses, others = by_two
    for source in FROM[strategy]:
        assert_same_tensors(folder / f"{strategy}-of-{source}-by-2", folder / source)
        assert others[strategy, source] == pytest.approx(losses[source], rel=1e-5)


def test_one_process_takes_up_what_two_have_saved(by_two):
    folder, losses, _ = by_two
    trained = engine_of(1, ModelWithNll(llama()), AdamW(lr=0.01))
    for source in ("ddp", "fsdp", "zero3"):
        take_up(trained, folder / source)
        save(trained, folder / f"one-of-{source}")
        assert_same_tensors(folder / f"one-of-{source}", folder / source)
        assert value(trained) == pytest.approx(losses[source][0], rel=1e-5)


def take_up_more(context, folder):
    return taken_up(context, folder, FROM_MORE)


def test_three_ranks_take_up_what_two_have_saved(by_two):
    folder, losses, _ = by_two
    found = run_ranks(take_up_more, folder, num_processes=3, log_file=None)
    for (strategy, source), after in found.items():
        assert_same_tensors(folder / f"{strategy}-of-{source}-by-3", folder / source)
        assert after == pytest.approx(losses[source], rel=1e-5)


def test_another_model_and_another_optimizer_are_refused(tmp_path):
    first = engine_of(1, torch.nn.Linear(2, 3))
    save(first, tmp_path / "first")
    with pytest.raises(ValueError, match=r"another model: 0\.bias, 0\.weight, bias is not in both"):
        take_up(engine_of(1, torch.nn.Sequential(torch.nn.Linear(2, 3))), tmp_path / "first")
    with pytest.raises(ValueError, match=r"does not fit: rank 0: Size mismatch.*weight"):
        take_up(engine_of(1, torch.nn.Linear(4, 3)), tmp_path / "first")
    amsgrad = engine_of(1, torch.nn.Linear(2, 3), Amsgrad())
    with pytest.raises(ValueError, match=r"another optimizer: it has no optimizer\.bias\.max_exp_avg_sq"):
        take_up(amsgrad, tmp_path / "first")
    take_up(amsgrad, tmp_path / "first", optimizer=False)
    assert torch.equal(amsgrad.bare.weight, first.bare.weight)


class Amsgrad:
    lr = 0.1

    def build(self, model):
        return torch.optim.AdamW(model.parameters(), lr=self.lr, amsgrad=True)


def test_files_that_cannot_be_read_are_no_other_model(tmp_path):
    trained = engine_of(1, torch.nn.Linear(2, 3))
    save(trained, tmp_path / "first")
    next((tmp_path / "first").glob("*/*.distcp")).unlink()
    with pytest.raises(OSError, match=r"cannot be read: rank 0: .*No such file"):
        take_up(trained, tmp_path / "first")
