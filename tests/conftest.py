"""Shared by all tests: small data, small runs, and quiet libraries."""

import os

import pytest
from runs import write_task

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")


@pytest.fixture(scope="session")
def tasks_dir(tmp_path_factory):
    """Three tasks of uneven size."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, size in {"forward": 60, "backward": 24, "sideways": 9}.items():
        write_task(folder, name, size)
    return folder
