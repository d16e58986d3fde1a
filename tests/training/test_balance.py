"""Task weights that follow losses: the same on all ranks, at the price of no message."""

import balance_worlds
import pytest
import torch
from balance_worlds import STEPS
from worlds import TASKS

from mftrun.distributed import Single
from mftrun.errors import MftrunError
from mftrun.launch import run_ranks
from mftrun.losses.normalizations import TaskMean
from mftrun.losses.objective import Objective
from mftrun.losses.token_losses import CrossEntropy
from mftrun.losses.weightings import Coba, Static
from mftrun.training.balance import Balance
from mftrun.training.watching import ProbeWatcher

WATCHING = ["coba", "coba on train"]


def run(name, ranks=1):
    return run_ranks(balance_worlds.balanced, name, num_processes=ranks, log_file=None)


@pytest.mark.parametrize("name", WATCHING)
def test_all_ranks_hold_the_same_weights_bit_for_bit(name):
    found = run(name, ranks=2)
    assert found.weights[0] == found.weights[1]
    assert len(set(torch.frombuffer(bytearray(found.weights[0]), dtype=torch.float64).tolist())) == len(TASKS)


@pytest.mark.parametrize("name", WATCHING)
def test_weights_do_not_depend_on_the_number_of_ranks(name):
    assert run(name, ranks=2).logged == pytest.approx(run(name).logged, rel=1e-3)


@pytest.mark.parametrize("name", ["static", *WATCHING])
def test_watching_costs_no_message_of_its_own(name):
    assert run(name, ranks=2).messages == STEPS


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_task(bad):
    objective = Objective(CrossEntropy(), TaskMean(), Coba(watch="train"), TASKS)
    balance = Balance(Single().join("fp32"), objective, TASKS)
    balance.begin_step(1)
    with pytest.raises(MftrunError, match=f"step 2: the train loss of {TASKS[1]} is not finite"):
        balance.observe(1, torch.tensor([4.0, bad, 0.0, 2.0, 2.0, 0.0], dtype=torch.float64))


def test_an_absent_task_is_no_loss_of_zero():
    objective = Objective(CrossEntropy(), TaskMean(), Coba(watch="train", warmup=2), TASKS)
    balance = Balance(Single().join("fp32"), objective, TASKS)
    for step, loss in enumerate((4.0, 3.0, 2.0, 1.0), start=1):
        balance.begin_step(step)
        balance.observe(step, torch.tensor([loss, 2 * loss, 0.0, 2.0, 2.0, 0.0], dtype=torch.float64))
    assert "balance/slope/single" not in balance.record()
    assert objective.task_weights()[2] == pytest.approx(1 / 3)


def test_what_is_only_logged_ends_no_run():
    """A probe without a weighting that watches it, and the probe of a task that is frozen."""
    broken = torch.tensor([4.0, float("inf"), 3.0, 2.0, 2.0, 2.0], dtype=torch.float64)
    for weighting in (Static(), Coba()):
        objective = Objective(CrossEntropy(), TaskMean(), weighting, TASKS)
        objective.freeze([1])
        balance = Balance(Single().join("fp32"), objective, TASKS, ProbeWatcher(NoProbe(), 1))
        balance.observe(0, broken)
        found = balance.record()
        assert found["probe/loss/large"] == 2.0
        assert "probe/loss/small" not in found


class NoProbe:
    """One that is never taken."""

    device = torch.device("cpu")
