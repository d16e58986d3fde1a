"""Which agent a process is, what contradicts that, and what a rank may see of other launchers."""

import re
import sys
from dataclasses import replace

import pytest

from mftrun.agent import own_arguments, own_place
from mftrun.distributed import machines
from mftrun.distributed.machines import Machines
from mftrun.errors import ConfigError
from mftrun.launch import ranks_for
from mftrun.launch.network import interface_to
from mftrun.launch.place import Place, node_place, outer_place
from mftrun.launch.seats import Seat, numbered
from mftrun.launch.surroundings import cleaned, unheard_wishes

OUTER = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "host",
    "MASTER_PORT": "1234",
}
TWO = Machines(num_nodes=2, main_address="host")
COMMAND = ["distributed.num_nodes=2", "distributed.main_address=host", "distributed.node_rank=1"]


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs this machine has."""
    return lambda count: monkeypatch.setattr(machines, "visible_gpus", lambda: count)


# Machines


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"num_processes": 0}, "num_processes"),
        ({"num_nodes": 0}, "num_nodes"),
        ({"max_restarts": -1}, "max_restarts"),
        ({"main_port": 65536}, "main_port"),
        ({"main_port": 0}, "main_port"),
        ({"node_rank": 1}, "node_rank"),
        ({"node_rank": -1}, "node_rank"),
        ({"num_nodes": 2, "node_rank": 2, "main_address": "host"}, "node_rank"),
        ({"num_nodes": 2}, "main_address"),
    ],
)
def test_values_out_of_range_are_refused(values, key):
    with pytest.raises(ConfigError, match=rf"^distributed\.{key}: "):
        Machines(**values)


@pytest.mark.parametrize(("visible", "asked", "ranks"), [(0, None, 1), (0, 3, 3), (2, None, 2), (2, 1, 1)])
def test_ranks_of_a_machine(gpus, visible, asked, ranks):
    gpus(visible)
    assert Machines(num_processes=asked).processes() == ranks


def test_more_ranks_than_gpus_are_refused(gpus):
    gpus(2)
    with pytest.raises(ConfigError, match="3 ranks need as many GPUs, and 2 are visible"):
        Machines(num_processes=3).processes()


# Places


def test_ranks_are_numbered_through():
    assert numbered([2, 1]) == [[Seat(0, 0, 2), Seat(1, 1, 2)], [Seat(2, 0, 1)]]


def test_the_place_among_nodes():
    assert node_place(Machines()) is None
    assert node_place(replace(TWO, node_rank=1)) == Place(1, 2, "host", 29500)


def test_the_place_that_an_outer_launcher_gives():
    place = outer_place(OUTER)
    assert place == Place(3, 4, "host", 1234, Seat(3, 1, 2))
    assert place.spans_machines
    assert not place.speaks
    assert not outer_place({**OUTER, "LOCAL_WORLD_SIZE": "4"}).spans_machines


def test_deepspeed_has_another_name_for_the_local_size():
    renamed = {**OUTER, "LOCAL_SIZE": "2"}
    del renamed["LOCAL_WORLD_SIZE"]
    assert outer_place(renamed) == outer_place(OUTER)


def test_a_store_of_torchrun_is_asked_by_run_and_restart():
    run = {"TORCHELASTIC_RUN_ID": "r", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert outer_place({**OUTER, **run, "TORCHELASTIC_USE_AGENT_STORE": "True"}).store_key == "mftrun/r/2"
    assert outer_place({**OUTER, **run, "TORCHELASTIC_USE_AGENT_STORE": "False"}).store_key is None


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "2"}, {**OUTER, "WORLD_SIZE": "1"}],
    ids=["none", "size", "node", "lone"],
)
def test_what_is_no_outer_launcher(environment):
    assert outer_place(environment) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WORLD_SIZE", "two", "WORLD_SIZE: in the environment must be a number, not 'two'"),
        ("MASTER_PORT", None, "MASTER_PORT: is not in the environment, while RANK"),
    ],
)
def test_a_broken_environment_is_refused(name, value, message):
    environment = {key: text for key, text in {**OUTER, name: value}.items() if text is not None}
    with pytest.raises(ConfigError, match=re.escape(message)):
        outer_place(environment)


# The command line


def test_a_follower_is_known_by_its_command_line(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    expected = Place(1, 2, "host", 29500)
    assert own_place(COMMAND) == expected
    assert own_place(["-m", "seed=1,2", "loss=mft,coba", *COMMAND]) == expected
    assert own_place(["--cfg", "job", *COMMAND]) is None
    assert own_place(["distributed.num_nodes=2", "distributed.main_address=host"]) is None
    with pytest.raises(ConfigError, match=r"^distributed\.main_address: "):
        own_place(["distributed.num_nodes=2", "distributed.node_rank=1"])


def test_what_deepspeed_adds_to_a_command_line_is_dropped():
    assert own_arguments(["--local_rank=1", "seed=1"]) == ["seed=1"]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["seed=1,2", "-m"], ["-m", "seed=1,2"]),
        (["job=plan", "--config-dir", "here", "seed=1"], ["--config-dir", "here", "job=plan", "seed=1"]),
        (["seed=1", "--cfg", "job"], ["--cfg", "job", "seed=1"]),
        (["seed=1", "--info", "seed=2"], ["--info", "seed=1", "seed=2"]),
        (["seed=1", "--info", "plugins"], ["--info", "plugins", "seed=1"]),
        (["seed=1", "--config-dir=here"], ["--config-dir=here", "seed=1"]),
        (["seed=1", "--cfg"], ["--cfg", "seed=1"]),
    ],
)
def test_flags_may_stand_anywhere(given, read):
    assert own_arguments(given) == read


# Contradictions


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Machines(num_processes=3), r"num_processes: is 3, and the outer launcher has started 2 processes"),
        (TWO, r"num_nodes: is 2, and an outer launcher has already started 4 processes"),
    ],
)
def test_an_outer_launcher_is_not_contradicted(monkeypatch, gpus, asked, message):
    gpus(0)
    for name, value in OUTER.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        ranks_for(asked, None)


def test_a_node_rank_that_comes_too_late_is_refused(monkeypatch, gpus):
    gpus(0)
    monkeypatch.setattr(sys, "argv", ["mftrun"])
    with pytest.raises(ConfigError, match=r"node_rank: is 1, and is read from the command line alone"):
        ranks_for(replace(TWO, node_rank=1), None)


# Surroundings


def test_ranks_see_nothing_of_an_outer_launcher():
    launchers = {**OUTER, "TORCHELASTIC_USE_AGENT_STORE": "True", "ACCELERATE_USE_FSDP": "true"}
    kept = {"ACCELERATE_TORCH_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": "1", "NCCL_DEBUG": "INFO"}
    assert cleaned({**launchers, **kept}) == kept


def test_wishes_that_come_to_nothing_are_told():
    assert not list(unheard_wishes({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"}))
    told = list(unheard_wishes({"ACCELERATE_USE_FSDP": "true", "ACCELERATE_MIXED_PRECISION": "fp16"}))
    assert ["distributed=fsdp" in told[0], "train.precision" in told[1]] == [True, True]
    one = {"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"}
    assert "has started one" in next(unheard_wishes(one))


def test_the_way_to_this_machine_is_its_loopback():
    assert interface_to("127.0.0.1", 1) == "lo"
    assert interface_to("no.such.host.invalid", 1) is None
