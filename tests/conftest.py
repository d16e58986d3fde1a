"""Shared by all tests: small data, small runs, and quiet libraries."""

import atexit
import os
import shutil
import tempfile

import pytest
from runs import write_task

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
if "MFTRUN_CACHE" not in os.environ:  # test processes share one cache, which is nobody else's
    os.environ["MFTRUN_CACHE"] = tempfile.mkdtemp(prefix="mftrun-tests-")
    atexit.register(shutil.rmtree, os.environ["MFTRUN_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _server():
    """Ranks of all tests are forked from one server, which imports once what any of them needs."""
    from mftrun.launch import PRELOAD, warm_up

    warm_up((*PRELOAD, "peft", "bitsandbytes", "deepspeed"))


@pytest.fixture(autouse=True)
def _as_the_server():
    """Engines made in this process leave variables behind, for which ranks would be started from nothing."""
    yield
    for name in ("ACCELERATE_USE_CPU", "DS_ACCELERATOR"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def tasks_dir(tmp_path_factory):
    """Three tasks of uneven size."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, size in {"forward": 60, "backward": 24, "sideways": 9}.items():
        write_task(folder, name, size)
    return folder
