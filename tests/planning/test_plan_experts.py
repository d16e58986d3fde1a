"""What a plan says of models of experts, and of adapters on experts."""

from dataclasses import replace

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

from mftrun.models.adapters import Lora, parameter_counts
from mftrun.models.experts import expert_stacks
from mftrun.planning import activations
from mftrun.planning.estimate import estimate
from mftrun.planning.report import as_values, report
from mftrun.planning.setup import Setup
from mftrun.planning.skeleton import measure

SETUP = Setup(global_batch=2, micro_batch=1, row_length=8, half=True, loaded=2)
LAYERS = 2


SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def mixtral():
    config = MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)
    return AutoModelForCausalLM.from_config(config)


def llama():
    return AutoModelForCausalLM.from_config(LlamaConfig(**SIZES))


def measured(**changes):
    adapter = Lora(r=2, dropout=0.0, target_modules="attention", **changes)
    return measure(adapter.apply(mixtral()))


def test_a_plan_tells_active_parameters():
    model, counts = measured(), parameter_counts(mixtral())
    found = estimate(model, SETUP)
    inactive = counts.total - counts.active
    assert as_values(model, SETUP, found, None, [])["active"] == model.whole.total - inactive
    assert f", {model.whole.total - inactive:,} active per token" in report(model, SETUP, found, None, [])
    assert "active" not in report(measure(llama()), SETUP, found, None, [])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_experts_with_adapters_are_copied_in_every_layer_that_is_kept(checkpointing):
    setup = replace(SETUP, checkpointing=checkpointing)
    weights = sum(p.numel() for _, p in expert_stacks(mixtral()))
    without, adapted = measured(), measured(experts=True)
    assert adapted.low_rank.merged == weights / LAYERS
    assert (adapted.low_rank.inputs, adapted.low_rank.ranks) == (
        without.low_rank.inputs,
        without.low_rank.ranks,
    )
    more = activations.saved(adapted, setup) - activations.saved(without, setup)
    assert more == (0 if checkpointing else 2 * weights)
    assert activations.layer(adapted, setup) - activations.layer(without, setup) == 2 * weights / LAYERS


def test_experts_keep_16_bit_where_linear_layers_are_quantised():
    model, weights = measured(), sum(p.numel() for _, p in expert_stacks(mixtral()))
    assert model.whole.other >= weights
    assert model.whole.linear == LAYERS * (2 * 32 * 32 + 2 * 32 * 16)
