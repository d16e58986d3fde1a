"""What a job reads from Slurm's environment and signals; without any Slurm."""

import builtins
import os
import signal

import pytest

from mftrun.distributed.machines import Machines
from mftrun.errors import ConfigError
from mftrun.hydra_plugin import slurm_launcher
from mftrun.launch.errors import Stopped
from mftrun.launch.joining import _joined
from mftrun.launch.place import Place, first_host, outer_place
from mftrun.launch.signals import ParentSignals, ScheduledSignals, parent_signals
from mftrun.slurm.errors import JobFailed
from mftrun.slurm.job import _own_number

TASK = {
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_NODELIST": "gpu[01-08]",
}
LISTS = {"a": "a", "gpu[07-08]": "gpu07", "rack1-[03-05,9],login": "rack1-03", "r[0-1]n[5,7]x,y": "r0n5x"}


@pytest.fixture
def default_handlers():
    kept = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for signum, handler in kept.items():
        signal.signal(signum, handler)


def test_a_task_of_two_nodes():
    place = outer_place(TASK)
    assert place == Place(1, 2, "gpu07", 16384 + 96)
    assert place.kind == "node"
    assert outer_place({**TASK, "SLURM_JOB_ID": "13"}).port != place.port


@pytest.mark.parametrize("nodelist", LISTS)
def test_the_first_host(nodelist):
    assert first_host(nodelist) == LISTS[nodelist]


@pytest.mark.parametrize(
    "changes",
    [{"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_STEP_NUM_TASKS": ""}],
    ids=["one task", "no step: the batch script, or a shell"],
)
def test_whoever_is_alone(changes):
    assert outer_place({**TASK, **changes}) is None


def test_several_tasks_on_a_node_are_refused():
    with pytest.raises(ConfigError, match="--ntasks-per-node: must be 1"):
        outer_place({**TASK, "SLURM_STEP_NUM_TASKS": "8"})


def test_nodes_are_those_of_the_job():
    place = outer_place({**TASK, "SLURM_NODEID": "0"})
    joined = _joined(Machines(num_processes=4), place)
    assert (joined.num_processes, joined.num_nodes, joined.main_address) == (4, 2, "gpu07")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_nodes": 3, "main_address": "gpu07"}, r"distributed\.num_nodes: is 3, and the job has 2"),
        ({"main_address": "elsewhere"}, r"distributed\.main_address: is chosen"),
        ({"main_port": 1234}, r"distributed\.main_port: is chosen"),
    ],
    ids=["num_nodes", "main_address", "main_port"],
)
def test_keys_that_slurm_decides(keys, message):
    with pytest.raises(ConfigError, match=message):
        _joined(Machines(**keys), outer_place(TASK))


def test_a_scheduler_asks_once(default_handlers):
    with parent_signals({"MFTRUN_SCHEDULED": "1"}) as signals:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert signals.take() == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.take() == []
    # Neither may anything end the way out.
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped), ScheduledSignals():
        pass


def test_a_scheduler_may_ask_while_nothing_can_be_saved(default_handlers):
    with ScheduledSignals() as signals, pytest.raises(Stopped), signals.raising():
        os.kill(os.getpid(), signal.SIGUSR2)


def test_by_hand_usr2_saves():
    assert type(parent_signals({})) is ParentSignals
    with parent_signals({}) as signals:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert signals.take() == [signal.SIGUSR2]


def test_the_last_job_of_an_array_is_not_the_array():
    array = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    assert _own_number(TASK) == "12"
    assert _own_number({**TASK, **array}) == "12_3"


def test_what_a_job_failed_of():
    trace = "Traceback …\nmftrun.slurm.errors.JobFailed: two\nlines\n"
    assert JobFailed.text_in(trace) == "two\nlines"
    assert JobFailed.text_in("Traceback …\nOSError: disk\n") == "OSError: disk"


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name.startswith("mftrun.slurm"):
            raise ModuleNotFoundError("No module named 'submitit'", name="submitit")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r'submitit is not installed: pip install "mftrun\[slurm\]"'):
        slurm_launcher()
