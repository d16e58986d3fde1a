"""The small world of `worlds`, with a model of experts whose router loss weighs as much as the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from worlds import TASKS, VOCABULARY, Split, engine_of, feed_of, objective_of

from mftrun.distributed import Ddp, Engine, Strategy, leave_group
from mftrun.models.with_nll import ModelWithNll
from mftrun.training.agreement import Ballot, agree
from mftrun.training.meter import Meter
from mftrun.training.optimizers import AdamW
from mftrun.training.step import accumulate

COEFFICIENT = 0.5


def mixtral(coefficient: float = COEFFICIENT, dropout: float = 0.0) -> torch.nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        num_local_experts=4,
        num_experts_per_tok=2,
        router_aux_loss_coef=coefficient,
        attention_dropout=dropout,
    )
    model = MixtralForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():  # routers that choose, and layers whose tokens differ
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.train()


@dataclass(frozen=True)
class Case:
    """A first global batch of eight rows, and the model that takes it.

    Attributes:
        split: How the batch is dealt.
        coefficient: Of the router loss.
        dropout: Of attention.
        strategy: How ranks share the model; None is DDP, or one process.
    """

    split: Split
    coefficient: float = COEFFICIENT
    dropout: float = 0.0
    strategy: Strategy | None = None


def gradients(context, case: Case):
    """Gradients of the batch, and what would be logged of its loss."""
    engine = engine_of(context.world_size, ModelWithNll(mixtral(case.coefficient, case.dropout)))
    record = _accumulated(engine, case)
    return {name: p.grad.clone() for name, p in engine.bare.named_parameters()}, record


def steps(context, case: Case):
    """Norms and losses of two steps on the batch, under any strategy."""
    strategy = case.strategy or Ddp(num_processes=context.world_size)
    ranks = strategy.join("fp32")
    model = ModelWithNll(mixtral(case.coefficient, case.dropout))
    options = {"precision": "fp32", "max_grad_norm": 0.5}
    engine = strategy.engine(ranks, model, AdamW(lr=0.01), **options)
    engine.model.train()
    found = [{**_accumulated(engine, case), "norm": engine.step(0.01)} for _ in range(2)]
    leave_group()
    return found


def _accumulated(engine: Engine, case: Case):
    ranks = engine.ranks
    feed = feed_of(case.split, ranks.index, ranks.count)
    ballot = Ballot(*feed.ballot(0, 0), stop=False, save=False)
    agreement = agree(ranks, ballot, torch.zeros(0, dtype=torch.float64, device=ranks.device))
    meter = Meter(ranks, TASKS)
    accumulate(engine, objective_of(case.split), feed.window(0, 0), agreement, meter)
    meter.count(agreement)
    return {key: value for key, value in meter.record({}).items() if key.startswith("train/")}
