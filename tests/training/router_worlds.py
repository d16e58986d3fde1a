"""The small world of `worlds`, with a model of experts whose router loss weighs as much as the others."""

from __future__ import annotations

import torch
from worlds import TASKS, VOCABULARY, Split, engine_of, feed_of, objective_of

from mftrun.models.with_nll import ModelWithNll
from mftrun.training.agreement import Ballot, agree
from mftrun.training.meter import Meter
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


def gradients(context, given: tuple[Split, float]):
    """Gradients of the first global batch with a coefficient, and what would be logged of its loss."""
    split, coefficient = given
    engine = engine_of(context.world_size, ModelWithNll(mixtral(coefficient)))
    ranks = engine.ranks
    feed = feed_of(split, ranks.index, ranks.count)
    ballot = Ballot(*feed.ballot(0, 0), stop=False, save=False)
    agreement = agree(ranks, ballot, torch.zeros(0, dtype=torch.float64, device=ranks.device))
    meter = Meter(ranks, TASKS)
    accumulate(engine, objective_of(split), feed.window(0, 0), agreement, meter)
    meter.count(agreement)
    record = meter.record({})
    found = {name: p.grad.clone() for name, p in engine.bare.named_parameters()}
    return found, {key: value for key, value in record.items() if key.startswith("train/")}
