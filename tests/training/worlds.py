"""Small worlds to train in: a store of random samples, a tiny Llama, and one step over a global batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mftrun.data.mixture import Proportional
from mftrun.data.plan import Planner
from mftrun.data.rows import Packing, Padding
from mftrun.data.sample import Origin
from mftrun.data.store import Entry, TokenStore
from mftrun.distributed import Ddp
from mftrun.losses.normalizations import SampleMean, TaskMean, TaskSampleMean, TokenMean
from mftrun.losses.objective import Objective
from mftrun.losses.token_losses import CrossEntropy
from mftrun.losses.weightings import Static
from mftrun.models.with_nll import ModelWithNll
from mftrun.training.agreement import Ballot, agree
from mftrun.training.feed import Feed
from mftrun.training.meter import Meter
from mftrun.training.step import accumulate

TASKS = ["large", "small", "single"]
VOCABULARY = 61
NORMALIZATIONS = {
    "token_mean": TokenMean,
    "sample_mean": SampleMean,
    "task_mean": TaskMean,
    "task_sample_mean": TaskSampleMean,
}


def write_store(folder: Path) -> TokenStore:
    """Eight samples of different sizes; the third task has one, so most micro-batches and a rank lack it."""
    random = np.random.default_rng(3)
    tasks, lengths = [0, 0, 0, 0, 0, 1, 1, 2], [30, 11, 24, 9, 17, 5, 21, 13]
    entries = []
    for index, (task, length) in enumerate(zip(tasks, lengths, strict=True)):
        ids = random.integers(1, VOCABULARY, length).astype(np.int32)
        targets = np.zeros(length, dtype=bool)
        targets[length // 3 :] = random.random(length - length // 3) < 0.7
        targets[-1] = True
        entries.append(Entry(ids, targets, task, Origin("made", index + 1)))
    return TokenStore.write(folder, entries, TASKS)


def llama() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config)


@dataclass(frozen=True)
class Split:
    """One global batch of eight rows' samples, and how it is dealt."""

    store: Path
    normalization: str
    micro_batch_size: int
    packed: bool = False


def gradients(context, split: Split) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Gradient of the first global batch, and the record that would be logged for it."""
    store = TokenStore.open(split.store)
    accelerator = Ddp(num_processes=context.world_size).accelerator("fp32")
    weighting = Static({"small": 3.0} if split.normalization.startswith("task") else {})
    objective = Objective(CrossEntropy(), NORMALIZATIONS[split.normalization](), weighting, TASKS)
    rows = Packing() if split.packed else Padding()
    planner = Planner(store.lengths, store.task, Proportional(), rows, 0, 8, 64)
    feed = Feed(
        store,
        planner,
        1,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        micro_batch_size=split.micro_batch_size,
        pad_id=0,
    )
    model = accelerator.prepare(ModelWithNll(llama()))
    agreement = agree(accelerator, Ballot(*feed.ballot(0, 0), stop=False, save=False))
    meter = Meter(accelerator, TASKS)
    accumulate(accelerator, model, objective, feed.window(0, 0), agreement, meter)
    meter.count(agreement)
    bare = accelerator.unwrap_model(model)
    record = meter.record(dict(zip(TASKS, objective.task_weights().tolist(), strict=True)))
    kept = {key: value for key, value in record.items() if key.startswith("train/") or key == "target_share"}
    return {name: p.grad.clone() for name, p in bare.named_parameters()}, kept


def lacks_a_task(split: Split, rank: int, world_size: int) -> bool:
    """Whether a whole rank goes without some task."""
    store = TokenStore.open(split.store)
    rows = Packing() if split.packed else Padding()
    planner = Planner(store.lengths, store.task, Proportional(), rows, 0, 8, 64)
    feed = Feed(
        store, planner, 1, rank=rank, world_size=world_size, micro_batch_size=split.micro_batch_size, pad_id=0
    )
    return bool((feed.ballot(0, 0)[0] == 0).any())
