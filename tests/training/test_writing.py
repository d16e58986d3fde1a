"""A checkpoint that cannot be written on some rank, and one that is written while the run goes on."""

import logging
import threading
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from runs import checkpoint_tensors
from test_checkpoint import World, equal, names
from torch.distributed.checkpoint import FileSystemWriter

from mftrun.launch import run_ranks
from mftrun.training.checkpoint import Checkpoints
from mftrun.training.progress import Best, Progress
from mftrun.training.tensors import Writing

ALONE = SimpleNamespace(world_size=1)
FAULT = OSError(28, "No space left on device")
# What a rank may fail in: its plan, its files, and, the first one, what comes before and after those.
MOMENTS = {
    "plan": (FileSystemWriter, "prepare_local_plan"),
    "write": (FileSystemWriter, "write_data"),
    "begin": (Checkpoints, "begin"),
    "metadata": (FileSystemWriter, "finish"),
    "publish": (Checkpoints, "publish"),
}
CASES = [(moment, rank) for moment in MOMENTS for rank in ((0, 1) if moment in ("plan", "write") else (0,))]


def failing(moment, fault=FAULT):
    return patch.object(*MOMENTS[moment], side_effect=fault)


def saves_that_fail(context, run_dir):
    """A save that works, then at each moment one that fails on one rank, at once and beside the steps."""
    world, progress = World(context, run_dir), Progress(tasks={"a": Best(1.0, 0)})
    assert world.saver.save(progress, world.meter)
    found = {}
    for background in (False, True):
        for moment, rank in CASES:
            world.train(progress)
            progress.tasks["a"].take(1.0 / (1 + progress.step), progress.step, 0.0)
            with failing(moment) if rank == world.engine.ranks.index else nullcontext():
                begun = world.saver.save(progress, world.meter, background=background)
                kept = begun and world.saver.settle(progress)
            world.engine.ranks.wait()
            left = sorted(path.name for path in world.checkpoints.folder.iterdir())
            own = kept, progress.tasks["a"].kept_step, left
            found[background, moment, rank] = world.engine.ranks.gather(own)
    world.train(progress)
    assert world.saver.save(progress, world.meter)
    return found, names(world.checkpoints), progress.step


def test_whatever_rank_fails_all_know_and_the_previous_one_stays(tmp_path):
    found, left, last = run_ranks(saves_that_fail, tmp_path, num_processes=2, log_file=None)
    assert len(found) == 2 * len(CASES)
    untouched = (False, 0, ["step-00000000"])
    assert {case: own for case, own in found.items() if own != [untouched, untouched]} == {}
    assert left == ["step-00000000", f"step-{last:08d}"], "the next save works"


class Gate:
    """Lets no file be written until it is opened."""

    def __init__(self):
        self.opened, self.reached = threading.Event(), threading.Event()

    @contextmanager
    def closed(self):
        write = FileSystemWriter.write_data

        def wait_and_write(*arguments):
            self.reached.set()
            assert self.opened.wait(60)
            return write(*arguments)

        with patch.object(FileSystemWriter, "write_data", wait_and_write):
            yield
            self.opened.set()


def test_training_goes_on_while_a_checkpoint_is_written_and_does_not_change_it(tmp_path):
    world, progress, gate = World(ALONE, tmp_path), Progress(tasks={"a": Best()}), Gate()
    world.train(progress)
    progress.tasks["a"].take(1.0, 1, 0.0)
    then = world.state()
    with gate.closed():
        assert world.saver.save(progress, world.meter, background=True)
        assert gate.reached.wait(60)
        world.train(progress, 2)
        assert world.saver.settle(progress, wait=False)
        assert (names(world.checkpoints), progress.kept_steps) == ([], set())
    assert world.saver.settle(progress)
    assert (names(world.checkpoints), progress.kept_steps) == (["step-00000001"], {1})
    assert equal(checkpoint_tensors(world.checkpoints.path(1)), then)
    assert not equal(world.state(), then)
    restored = world.saver.restore(world.checkpoints.path(1), world.meter)
    assert (restored.step, restored.kept_steps, world.balance.seen) == (1, {1}, 1)


def test_it_appears_without_waiting_once_it_is_written(tmp_path):
    world, progress = World(ALONE, tmp_path), Progress()
    assert world.saver.save(progress, world.meter, background=True)
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join(60)
    assert names(world.checkpoints) == []
    assert world.saver.settle(progress, wait=False)
    assert names(world.checkpoints) == ["step-00000000"]


@pytest.mark.parametrize("settled_by", ["save", "roll_back"])
def test_one_is_there_before_the_next_begins_or_the_model_goes_back(tmp_path, settled_by):
    world, progress = World(ALONE, tmp_path), Progress(tasks={"a": Best(1.0, 0)})
    fresh = world.state()
    assert world.saver.save(progress, world.meter, background=True)
    world.train(progress)
    if settled_by == "save":
        assert world.saver.save(progress, world.meter)
        assert names(world.checkpoints) == ["step-00000000", "step-00000001"]
    else:
        progress.rollback = 0
        assert world.saver.roll_back(progress)
        assert equal(world.state(), fresh)


def test_a_fault_beside_the_steps_is_told_when_it_is_settled(tmp_path, caplog):
    world, progress = World(ALONE, tmp_path), Progress(tasks={"a": Best()})
    assert world.saver.save(progress, world.meter)
    world.train(progress)
    progress.tasks["a"].take(1.0, 1, 0.0)
    with caplog.at_level(logging.ERROR), failing("write"):
        assert world.saver.save(progress, world.meter, background=True)
        assert not world.saver.settle(progress)
    assert "step 1 could not be saved ([Errno 28] No space left on device)" in caplog.text
    assert [path.name for path in world.checkpoints.folder.iterdir()] == ["step-00000000"]
    assert progress.kept_steps == set()
    assert world.saver.settle(progress), "there is nothing left to settle"


def test_a_mistake_of_ours_is_no_full_disk(tmp_path):
    world, progress = World(ALONE, tmp_path), Progress()
    with failing("write", fault=ZeroDivisionError), pytest.raises(ZeroDivisionError):
        world.saver.save(progress, world.meter)


def test_no_more_is_copied_than_this_rank_writes(tmp_path):
    world = World(ALONE, tmp_path)
    with patch("mftrun.training.tensors._copied", side_effect=torch.clone) as copied:
        Writing(world.engine, tmp_path, background=True).wait()
    assert copied.call_count == len(world.state())
