"""Small worlds to train in: a store of random samples, a tiny Llama, and one step over a global batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from memory_samples import MemorySamples, joined

from mftrun.data.epochs import SameSamples
from mftrun.data.mixture import Proportional
from mftrun.data.plan import Planner, evaluation_plan
from mftrun.data.rows import Concat, Packing, Padding, PaddingFree
from mftrun.distributed import Ddp, Engine
from mftrun.losses.focal import Focal
from mftrun.losses.normalizations import SampleMean, TaskMean, TaskSampleMean, TokenMean
from mftrun.losses.objective import Objective
from mftrun.losses.token_losses import CrossEntropy
from mftrun.losses.weightings import Static
from mftrun.models.with_nll import ModelWithNll
from mftrun.training.agreement import Ballot, agree
from mftrun.training.evaluation import Evaluator
from mftrun.training.feed import Feed
from mftrun.training.meter import Meter
from mftrun.training.optimizers import AdamW, OptimizerFactory
from mftrun.training.step import accumulate

TASKS = ["large", "small", "single"]
VOCABULARY = 61
NORMALIZATIONS = {
    "token_mean": TokenMean,
    "sample_mean": SampleMean,
    "task_mean": TaskMean,
    "task_sample_mean": TaskSampleMean,
}
TOKEN_LOSSES = {
    "cross_entropy": CrossEntropy(),
    "focal_token": Focal("token", 2.0, {"single": 0.5}),
    "focal_sample": Focal("sample", 2.0, {"single": 0.5}),
    "focal_task": Focal("task", 2.0, {"single": 0.5}),
}
ROWS = {"padding": Padding(), "packing": Packing(), "concat": Concat(), "padding_free": PaddingFree(48)}


def make_samples(weights: tuple[float, ...] = (1.0,)) -> MemorySamples:
    """Eight samples of different sizes; the third task has one, so most micro-batches and a rank lack it.

    Targets take the weights in turn, some tokens each.
    """
    random = np.random.default_rng(3)
    tasks, lengths = [0, 0, 0, 0, 0, 1, 1, 2], [30, 11, 24, 9, 17, 5, 21, 13]
    samples = []
    for index, (task, length) in enumerate(zip(tasks, lengths, strict=True)):
        ids = random.integers(1, VOCABULARY, length).astype(np.int32)
        targets = np.zeros(length, dtype=bool)
        targets[length // 3 :] = random.random(length - length // 3) < 0.7
        targets[-1] = True
        turn = np.array(weights)[(index + np.arange(length) // 3) % len(weights)]
        samples.append((ids, targets * turn, task))
    return joined(samples, tasks=TASKS)


def llama(dropout: float = 0.0) -> torch.nn.Module:
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
        attention_dropout=dropout,
    )
    return LlamaForCausalLM(config)


@dataclass(frozen=True)
class Split:
    """One global batch of eight rows' samples, and how it is dealt."""

    normalization: str
    micro_batch_size: int
    rows: str = "padding"
    weights: tuple[float, ...] = (1.0,)
    token_loss: str = "cross_entropy"


def gradients(context, split: Split) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Gradient of the first global batch, and the record that would be logged for it."""
    engine = engine_of(context.world_size, ModelWithNll(llama()))
    ranks = engine.ranks
    objective = objective_of(split)
    feed = feed_of(split, ranks.index, ranks.count)
    ballot = Ballot(*feed.ballot(0, 0), stop=False, save=False)
    agreement = agree(ranks, ballot, torch.zeros(0, dtype=torch.float64, device=ranks.device))
    meter = Meter(ranks, TASKS)
    accumulate(engine, objective, feed.window(0, 0), agreement, meter)
    meter.count(agreement)
    record = meter.record(dict(zip(TASKS, objective.task_weights().tolist(), strict=True)))
    kept = {key: value for key, value in record.items() if key.startswith("train/") or key == "target_share"}
    return {name: p.grad.clone() for name, p in engine.bare.named_parameters()}, kept


def engine_of(
    ranks: int,
    model: torch.nn.Module,
    optimizer: OptimizerFactory | None = None,
    max_grad_norm: float | None = None,
) -> Engine:
    """A model under DDP, or alone."""
    strategy = Ddp(num_processes=ranks)
    options = {"precision": "fp32", "max_grad_norm": max_grad_norm}
    return strategy.engine(strategy.join("fp32"), model, optimizer or AdamW(lr=0.1), **options)


def objective_of(split: Split) -> Objective:
    weighting = Static({"small": 3.0} if split.normalization.startswith("task") else {})
    return Objective(TOKEN_LOSSES[split.token_loss], NORMALIZATIONS[split.normalization](), weighting, TASKS)


def lacks_a_task(split: Split, rank: int, world_size: int) -> bool:
    """Whether a whole rank goes without some task."""
    return bool((feed_of(split, rank, world_size).ballot(0, 0)[0] == 0).any())


def feed_of(split: Split, rank: int, world_size: int) -> Feed:
    samples = make_samples(split.weights)
    planner = Planner(samples.lengths, samples.task, Proportional(), ROWS[split.rows], 0, 8, 64)
    size = split.micro_batch_size
    epochs = SameSamples(samples, planner)
    return Feed(epochs, 1, rank=rank, world_size=world_size, micro_batch_size=size, pad_id=0)


def validated(context, split: Split) -> dict[str, float]:
    """Validation losses of all samples by an untrained model."""
    samples = make_samples(split.weights)
    engine = engine_of(context.world_size, ModelWithNll(llama()))
    plan = evaluation_plan(samples.lengths, ROWS[split.rows], 32)
    evaluator = Evaluator(engine.ranks, samples, plan, split.micro_batch_size, pad_id=0)
    losses = evaluator.losses(engine.model, context.stop)
    assert losses is not None
    return losses


def stopped_on_one(context, split: Split) -> list[int]:
    """Micro-batches that each rank has measured where the last alone is told to stop, after its first."""
    samples = make_samples(split.weights)
    engine = engine_of(context.world_size, ModelWithNll(llama()))
    plan = evaluation_plan(samples.lengths, ROWS[split.rows], 32)
    done: list[bool] = []

    def note(*_: object) -> None:
        done.append(True)
        context.stop.stop_requested = engine.ranks.index == engine.ranks.count - 1

    engine.bare.register_forward_hook(note)
    evaluator = Evaluator(engine.ranks, samples, plan, split.micro_batch_size, pad_id=0)
    assert evaluator.losses(engine.model, context.stop) is None
    return engine.ranks.gather(len(done))
