"""Watched losses: which draw they are of, what a checkpoint holds, what becomes of them at a rollback."""

import pytest
import torch

from mftrun.distributed import Ddp, Single
from mftrun.launch import run_ranks
from mftrun.training import watching
from mftrun.training.watching import ProbeWatcher, TrainWatcher

TASKS = 3


class NumberedProbe:
    """Gives the number of the draw as every sum."""

    device = torch.device("cpu")

    def sums(self, model, number):
        return torch.full((2 * TASKS,), float(number), dtype=torch.float64)

    def nothing(self):
        return torch.zeros(2 * TASKS, dtype=torch.float64)


def probed(watcher, count):
    """The draws of the next probes."""
    found = []
    for _ in range(count):
        assert watcher.vector(None, 0)[0] == watcher.draw()
        found.append(watcher.draw())
        watcher.taken()
    return found


def trained(watcher, value=1.0):
    """A step in which every task has one target of this loss."""
    watcher.begin().load_vector(torch.tensor([value] * TASKS + [1.0] * TASKS, dtype=torch.float64))


@pytest.fixture
def train_watcher():
    return TrainWatcher(Single().join("fp32"), TASKS)


@pytest.mark.parametrize(("before", "after"), [(0, [0, 0, 0, 1]), (1, [1, 1, 1, 2]), (3, [1, 1, 1, 2])])
def test_a_probe_takes_no_draw_up_again_once_the_model_was_put_back(before, after):
    watcher = ProbeWatcher(NumberedProbe(), 1, repeats=3)
    probed(watcher, before)
    watcher.interrupt()
    assert probed(watcher, 4) == after


def test_draws_that_are_never_repeated_go_on_as_they_were():
    watcher = ProbeWatcher(NumberedProbe(), 1)
    assert probed(watcher, 2) == [0, 1]
    watcher.interrupt()
    assert probed(watcher, 2) == [2, 3]


def test_a_resumed_probe_knows_that_it_was_interrupted():
    first, second = (ProbeWatcher(NumberedProbe(), 1, repeats=3) for _ in range(2))
    probed(first, 2)
    first.interrupt()
    second.load_state(first.state())
    assert probed(second, 2) == [1, 1]


def test_the_time_of_a_probe_is_that_of_its_device(monkeypatch):
    asked = []
    monkeypatch.setattr(watching, "Stopwatch", asked.append)
    ProbeWatcher(NumberedProbe(), 1)
    assert asked == [NumberedProbe.device]


def test_steps_have_numbers_in_a_row(train_watcher):
    found = []
    for step in range(3):
        trained(train_watcher, step)
        assert train_watcher.is_new(step)
        assert train_watcher.vector(None, step)[0] == step
        found.append(train_watcher.draw())
        train_watcher.taken()
    assert found == [0, 1, 2]
    assert not train_watcher.is_new(3)


@pytest.mark.parametrize("pending", [False, True])
def test_what_was_trained_before_the_model_was_put_back_is_dropped_and_leaves_a_gap(train_watcher, pending):
    trained(train_watcher)
    last = train_watcher.draw()
    train_watcher.taken()
    if pending:
        trained(train_watcher, 5.0)
    train_watcher.interrupt()
    assert not train_watcher.is_new(2)
    assert not train_watcher.vector(None, 2).any()
    trained(train_watcher, 7.0)
    assert train_watcher.is_new(3)
    assert train_watcher.vector(None, 3)[0] == 7.0
    assert train_watcher.draw() > last + 1


def sums_of(rank):
    """Numbers whose sum hangs on the order."""
    return torch.tensor([0.1, 1e16, -1e16, 3.0, 1.0, 7.0], dtype=torch.float64) * (rank + 1) / 3


def kept(context, _):
    """Whether each rank has its own sums again; and the state."""
    ranks = Ddp(num_processes=context.world_size).join("fp32")
    first, second = (TrainWatcher(ranks, TASKS) for _ in range(2))
    first.begin().load_vector(sums_of(ranks.index))
    state = first.state()
    second.load_state(state)
    is_same = torch.equal(second.vector(None, 1), first.vector(None, 1)) and second.is_new(1)
    return ranks.gather(is_same), state


def test_every_rank_has_its_own_sums_again():
    found, state = run_ranks(kept, None, num_processes=3, log_file=None)
    assert found == [True] * 3
    assert [part.tolist() for part in state["sums"]] == [sums_of(rank).tolist() for rank in range(3)]


def test_another_number_of_ranks_has_them_all(train_watcher):
    train_watcher.load_state({"seen": 4, "pending": True, "sums": [sums_of(rank) for rank in range(3)]})
    expected = sums_of(0) + sums_of(1) + sums_of(2)
    assert torch.equal(train_watcher.vector(None, 5), expected)
    assert (train_watcher.draw(), train_watcher.is_new(5)) == (4, True)


class Second:
    """The second of two ranks."""

    index, count, is_main, device = 1, 2, False, torch.device("cpu")


def test_of_another_number_of_ranks_the_first_takes_them_alone():
    watcher = TrainWatcher(Second(), TASKS)
    watcher.load_state({"seen": 4, "pending": True, "sums": [sums_of(0)]})
    assert not watcher.vector(None, 5).any()
