"""Whole runs for tests: composed as on the command line, small enough to end in seconds."""

import json
import random
import warnings
from pathlib import Path

import numpy as np
import torch

from mftrun.build import build
from mftrun.compose import compose
from mftrun.data.table import SampleTable
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


def checkpoint_tensors(folder):
    """Whole tensors of a checkpoint by name: weights and the optimizer's state, whatever ranks wrote it."""
    from torch.distributed import checkpoint

    reader = checkpoint.FileSystemReader(folder / "tensors")
    saved = reader.read_metadata().state_dict_metadata
    tensors = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in saved.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        checkpoint.load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def assert_same_tensors(found, expected):
    """Two checkpoints hold the same weights and optimizer state, bit by bit."""
    ours, theirs = checkpoint_tensors(found), checkpoint_tensors(expected)
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("model.") for name in ours)
    assert any(name.startswith("optimizer.") for name in ours)
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different


def plain_losses(model, run):
    """Validation losses by task, by the logits of a model that plain transformers or peft has loaded."""
    store = SampleTable.open(run / "data" / "valid")
    sums, counts = dict.fromkeys(store.tasks, 0.0), dict.fromkeys(store.tasks, 0)
    for sample, task in enumerate(store.task):
        whole = (np.array([value]) for value in (sample, 0, store.lengths[sample]))
        ids = torch.from_numpy(store.read(*whole)).long()
        targets = torch.zeros(len(ids), dtype=torch.bool)
        for span in range(store.span_ptr[sample], store.span_ptr[sample + 1]):
            targets[store.span_start[span] :][: store.span_length[span]] = True
        with torch.no_grad():
            logits = model(ids[None]).logits[0]
        nll = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
        sums[store.tasks[task]] += float(nll[targets[1:]].sum())
        counts[store.tasks[task]] += int(targets.sum())
    return {f"valid/loss/{name}": sums[name] / counts[name] for name in store.tasks}
