"""Whole runs on several agents: of another launcher, and of two machines that are network namespaces."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from launch_program import Program
from runs import overrides_for

from mftrun.launch.network import free_port

BIN = Path(sys.executable).parent
LAUNCHERS = {
    "torchrun": ["torchrun", "--nproc_per_node=2", "--master_port={port}", "-m", "mftrun"],
    "accelerate": [
        *("accelerate", "launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"),
        *("--mixed_precision=bf16", "--main_process_port={port}", "-m", "mftrun"),
    ],
    "deepspeed": ["deepspeed", "--num_accelerators=2", "--master_port={port}", "--module", "mftrun"],
}


def overrides(tasks_dir, run_dir, *more):
    two = ["distributed=ddp", "train.micro_batch_size=1", "train.max_steps=2", f"output_dir={run_dir}"]
    return overrides_for(tasks_dir, *two, *more)


def launched(name, *arguments, **environment):
    """A run under another launcher, which needs no GPU."""
    program, *words = [word.format(port=free_port()) for word in LAUNCHERS[name]]
    if not (BIN / program).exists():
        pytest.skip(f"{program} is not installed")
    return Program(BIN / program, *words, *arguments, DS_ACCELERATOR="cpu", **environment)


def assert_whole(folder):
    """One run has written one folder, and finished."""
    log = (folder / "mftrun.log").read_text()
    assert log.count("prepared the data") == 1
    assert log.count("parameters are trained") == 1
    assert json.loads((folder / "summary.json").read_text())
    assert (folder / "model" / "config.json").exists()


@pytest.mark.parametrize("name", ["accelerate", "deepspeed"])
def test_a_run_joins_the_ranks_of_another_launcher(tasks_dir, tmp_path, name):
    folder = tmp_path / "runs" / "one"
    with launched(name, *overrides(tasks_dir, folder)) as running:
        assert running.end() == 0, running.output
        assert [path.name for path in folder.parent.iterdir()] == ["one"]
        assert_whole(folder)
        asked = "accelerate launch asks for ACCELERATE_MIXED_PRECISION=bf16: use train.precision"
        assert (asked in running.output) is (name == "accelerate")


def test_the_jobs_of_a_sweep_run_one_after_the_other_under_torchrun(tasks_dir, tmp_path):
    """The first is refused: its strategy has no room for the ranks that there are."""
    folder = tmp_path / "sweep"
    arguments = [one for one in overrides(tasks_dir, folder) if not one.startswith("distributed")]
    with launched(
        "torchrun", "-m", *arguments, "distributed=single,ddp", "hydra.sweep.subdir=${hydra.job.num}"
    ) as running:
        assert running.end() == 1
        assert "distributed=single runs one process, not 2" in running.output
        assert not (folder / "0" / "summary.json").exists()
        assert_whole(folder / "1")


@contextmanager
def two_networks():
    """Two network namespaces, joined by a cable; nothing else leads from one to the other."""
    names = [f"mftrun{os.getpid()}{end}" for end in "ab"]
    with ExitStack() as stack:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
        ends = [f"v{os.getpid()}{end}" for end in "ab"]
        _ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", ends[1], "netns", names[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
            _ip("-n", name, "address", "add", f"10.201.77.{number}/24", "dev", end)
            for device in ("lo", end):
                _ip("-n", name, "link", "set", device, "up")
        yield names


def _ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")


@pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip (iproute2)")
def test_two_nodes_form_one_job_of_four_ranks(tasks_dir, tmp_path):
    folder = tmp_path / "runs" / "one"
    nodes = [
        *("distributed.num_nodes=2", "distributed.num_processes=2", "distributed.main_address=10.201.77.1"),
        *("train.global_batch_size=8", f"distributed.main_port={free_port()}"),
    ]
    with two_networks() as networks, ExitStack() as stack:
        agents = [
            stack.enter_context(
                Program(
                    *("ip", "netns", "exec", network, sys.executable, "-m", "mftrun"),
                    *overrides(tasks_dir, folder, *nodes, f"distributed.node_rank={index}"),
                )
            )
            for index, network in enumerate(networks)
        ]
        assert [agent.end() for agent in agents] == [0, 0], [agent.output for agent in agents]
        assert_whole(folder)
