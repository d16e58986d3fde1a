"""Whole runs for tests: composed as on the command line, small enough to end in seconds."""

import json
import random
from pathlib import Path

from mftrun.build import build
from mftrun.compose import compose
from mftrun.schema import check

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


SMALL = [
    "tracker=none",
    "model.vocab_size=400",
    "model.hidden_size=32",
    "model.intermediate_size=48",
    "model.num_hidden_layers=2",
    "data.max_length=96",
    "train.global_batch_size=4",
    "train.micro_batch_size=2",
    "evaluation.batch_size=4",
    "distributed=single",
]


def overrides_for(tasks_dir, *more):
    paths = ",".join(str(path) for path in sorted(Path(tasks_dir).iterdir()))
    return [*SMALL, f"data.paths=[{paths}]", *more]


def train(run_dir, *overrides):
    """Runs job=train in `run_dir` and returns what Hydra would get."""
    run_dir.mkdir(parents=True, exist_ok=True)
    config = compose(overrides, run_dir)
    allowed = check(config).allowed_targets
    return build(config["job"], object, "job", allowed=allowed).run(config, run_dir)
