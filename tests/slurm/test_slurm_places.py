"""What a job reads from Slurm's environment and signals; without any Slurm."""

import builtins
import os
import signal
import socket
import subprocess

import pytest
from hydra.errors import HydraException

from mftrun import cli
from mftrun.compose import compose_config
from mftrun.distributed.machines import Machines
from mftrun.errors import ConfigError, MftrunError
from mftrun.explain import explanation
from mftrun.hydra_plugin import slurm_launcher
from mftrun.launch.crew import Crew
from mftrun.launch.errors import NodeLost, RankFailed, Stopped
from mftrun.launch.joining import _joined
from mftrun.launch.link import Launch, Link, Signalled
from mftrun.launch.place import Place, first_host, outer_place
from mftrun.launch.remote import RemoteAgent
from mftrun.launch.seats import Seat, World
from mftrun.launch.signals import ParentSignals, ScheduledSignals, parent_signals
from mftrun.launch.team import Team
from mftrun.slurm.controller import environment_number
from mftrun.slurm.errors import JobFailed
from mftrun.slurm.submission import _named, submit

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


def test_a_scheduler_may_ask_before_anything_else(default_handlers, monkeypatch):
    monkeypatch.setenv("MFTRUN_SCHEDULED", "1")
    monkeypatch.setattr("sys.argv", ["mftrun"])
    monkeypatch.setattr(cli, "_lead_or_follow", lambda _: os.kill(os.getpid(), signal.SIGUSR2))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 143


@pytest.fixture
def follower():
    """The leader's side of a node with one rank, and the node's own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = Link(socket.create_connection(server.getsockname()))
        agent = RemoteAgent(Link(server.accept()[0]), "node 1", None)
    crew = Crew(ParentSignals(), [agent])
    crew.join(agent.launch(Launch([Seat(1, 0, 1)], World(2, "127.0.0.1", 1), b"", None, 20)))
    yield crew, there
    there.close()


@pytest.mark.parametrize(
    ("scheduled", "told", "error"),
    [("", False, RankFailed), ("1", False, NodeLost), ("", True, Stopped), ("1", True, Stopped)],
    ids=["gone", "gone from a job of Slurm", "asked to stop", "preempted"],
)
def test_what_it_means_that_a_node_is_gone(follower, monkeypatch, scheduled, told, error):
    crew, there = follower
    monkeypatch.setenv("MFTRUN_SCHEDULED", scheduled)
    if told:
        there.send(Signalled(signal.SIGTERM))
    there.close()
    crew.watch()
    with pytest.raises(error) as end:
        crew.result()
    assert type(end.value) is error


def test_a_port_that_is_taken_cannot_be_chosen_in_a_job():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = Place(0, 2, "127.0.0.1", taken.getsockname()[1], by_slurm=True)
        with pytest.raises(MftrunError, match="submit again: another job has another port"):
            Team(place, [])


def test_by_hand_usr2_saves():
    assert type(parent_signals({})) is ParentSignals
    with parent_signals({}) as signals:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert signals.take() == [signal.SIGUSR2]


def test_the_last_job_of_an_array_is_not_the_array():
    array = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    assert environment_number(TASK) == "12"
    assert environment_number({**TASK, **array}) == "12_3"


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+cluster=slurm", "hydra.launcher.partiton=gpu"], "did you mean hydra.launcher.partition?"),
        (["hydra.launcher.partition=gpu"], "did you mean hydra.launcher.partition with +cluster=slurm?"),
        (["hydra.sweeper.n_trial=3"], "did you mean hydra.sweeper.n_trials with hydra/sweeper=optuna?"),
        (["hydra.launcher.zzzz=3"], "there is no such key; known: _target_"),
        (["+cluster=slurm", "hydra.launcher.timeout_min=1h"], "timeout_min: Value '1h' of type 'str'"),
        (["+cluster=slurm", "hydra.launcher.setup=module load x"], 'hydra.launcher.setup=["module load x"]'),
        (["+cluster=slurm", "hydra.launcher.srun_args=--x"], 'hydra.launcher.srun_args=["--x"]'),
    ],
)
def test_keys_of_a_launcher_that_cannot_be_used(arguments, message):
    with pytest.raises(HydraException) as refused:
        compose_config(arguments)
    assert message in explanation(refused.value, arguments)


def test_what_keeps_a_preset_from_sweeping_is_told():
    arguments = ["+cluster=slurm_sweep", "loss=mft,coba", "hydra.launcher.partiton=gpu"]
    with pytest.raises(HydraException, match="Ambiguous value") as refused:
        compose_config(["loss=mft,coba"])
    assert "did you mean hydra.launcher.partition?" in explanation(refused.value, arguments)
    assert "Ambiguous value" in explanation(refused.value, arguments[:2])


@pytest.mark.parametrize(("line", "goes_on"), [("true", True), ("[ -z x ] || true", True), ("false", False)])
def test_a_line_of_setup_that_fails_ends_the_job(line, goes_on):
    setup = _named({"setup": [line]})["slurm_setup"]
    done = subprocess.run(
        ["bash", "-c", "\n".join([*setup, "false", "echo ran"])], text=True, capture_output=True, check=False
    )
    assert ("ran" in done.stdout) is goes_on
    assert ("error: hydra.launcher.setup: failed: false" in done.stderr) is not goes_on


def test_a_time_that_nothing_fits_in_is_refused():
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.timeout_min: must be 1 or more"):
        submit(print, [()], folder="x", executor={}, parameters={"timeout_min": 0})


def test_any_option_of_sbatch_may_be_given():
    keys = "hydra.launcher.additional_parameters={hold: true}"
    composed = compose_config(["+cluster=slurm_gpu", keys, "hydra.launcher.account=12"], with_hydra=True)
    launcher = composed.hydra.launcher
    assert (launcher.additional_parameters, launcher.account) == ({"hold": True}, "12")
