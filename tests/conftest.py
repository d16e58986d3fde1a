"""Shared by all tests: small data, small runs, and quiet libraries."""

import json
import os
import random

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lamda",
    "mu",
    "nu",
    "xi",
    "omicron",
    "pi",
    "rho",
    "sigma",
    "tau",
]


def write_task(folder, name, size, longest=12, seed=0):
    """A task whose answer is its question backwards, as a folder of JSONL."""
    chosen = random.Random(f"{seed}-{name}")
    lines = []
    for _ in range(size):
        words = chosen.choices(WORDS, k=chosen.randint(1, longest))
        rounds = [
            {"role": "human", "content": f"{name}: {' '.join(words)}"},
            {"role": "bot", "content": " ".join(reversed(words))},
        ]
        lines.append(json.dumps({"chat_rounds": rounds}))
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "train.jsonl").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def tasks_dir(tmp_path_factory):
    """Three tasks of uneven size."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, size in {"forward": 60, "backward": 24, "sideways": 9}.items():
        write_task(folder, name, size)
    return folder
