"""Adapters on models of experts, and what counts as theirs."""

from __future__ import annotations

import pytest
import torch
from adapter_options import nll, saved, train, trained
from model_families import tiny
from peft import PeftModel
from transformers import AutoModelForCausalLM

from mftrun.errors import ConfigError
from mftrun.models.adapters import Lora, PeftMethod, parameter_counts
from mftrun.models.adapters.targets import layers_to_adapt, routers
from mftrun.models.experts import describe_unquantized, expert_stacks
from mftrun.models.quantization import FourBit, quantized_layers
from mftrun.models.recompute import recompute_activations

HIDDEN, INNER, EXPERTS, LAYERS = 32, 48, 4, 2
STACK = EXPERTS * 3 * HIDDEN * INNER  # gate, up and down of one layer
EVERYWHERE = Lora(r=3, dropout=0.0, target_modules="attention", experts=True)


@pytest.fixture(scope="module", params=["mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2"])
def base(request, tmp_path_factory):
    """The folder of a small model of experts."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny(request.param).save_pretrained(folder)
    return folder


def load(base, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(base, dtype=dtype).train()


def test_adapters_on_experts_are_trained_and_saved_for_plain_peft(base, tmp_path):
    torch.manual_seed(7)
    model = EVERYWHERE.apply(load(base))
    layers = sum("gate_up_proj" in path for path, _ in expert_stacks(load(base)))
    on_experts = [name for name in trained(model) if ".experts." in name]
    assert len(on_experts) == layers * 2 * 2  # two stacks a layer, two factors each
    assert not [name for name in trained(model) if ".gate." in name or ".router." in name]
    assert train(model).problems() == []
    found = nll(model)
    assert (found - nll(load(base))).abs().max() > 0.1
    folder = saved(EVERYWHERE, model, tmp_path / "saved")
    torch.testing.assert_close(
        nll(PeftModel.from_pretrained(load(base), folder)), found, rtol=1e-4, atol=1e-4
    )


def test_merging_adapters_on_experts_changes_no_loss(base):
    model = EVERYWHERE.apply(load(base))
    train(model)
    found = nll(model)
    torch.testing.assert_close(nll(model.merge_and_unload()), found, rtol=1e-4, atol=1e-4)


def test_16_bit_experts_have_adapters_of_32_bit_and_can_be_computed_again(base):
    model = EVERYWHERE.apply(load(base, torch.bfloat16))
    recompute_activations(model)
    assert {p.dtype for p in trained(model).values()} == {torch.float32}
    assert train(model).problems() == []


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"dropout": 0.05}, "dropout"), ({"use_dora": True}, "use_dora"), ({"init": "pissa"}, "init")],
)
def test_what_does_not_work_on_experts(settings, key):
    with pytest.raises(ConfigError) as caught:
        Lora(experts=True, **{"dropout": 0.0, **settings})
    assert caught.value.key == f"peft.{key}"


def test_experts_are_refused_where_there_are_none():
    with pytest.raises(ConfigError, match="no experts") as caught:
        Lora(dropout=0.0, experts=True).apply(tiny("llama"))
    assert caught.value.key == "peft.experts"


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", ["k_proj", "o_proj", "q_proj", "v_proj"]),
        ("mixtral", ["k_proj", "o_proj", "q_proj", "v_proj"]),
        ("gpt_neox", ["dense", "query_key_value"]),
        ("gpt_bigcode", ["attn.c_proj", "c_attn"]),
    ],
)
def test_attention_means_the_linear_layers_in_attention(family, expected):
    model = tiny(family)
    assert layers_to_adapt("attention", model, "peft.target_modules") == expected
    adapted = Lora(r=2, dropout=0.0, target_modules="attention").apply(model)
    layers = {name.partition(".lora_")[0] for name in trained(adapted)}
    assert len(layers) == LAYERS * len(expected)
    assert all("attn" in name or "attention" in name for name in layers)


def test_attention_of_other_methods():
    from peft import C3AConfig

    model = PeftMethod(C3AConfig(block_size=4, target_modules="attention")).apply(tiny("llama"))
    assert {name.split(".")[6] for name in trained(model)} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_a_model_without_attention_is_refused():
    model = tiny("llama")
    for layer in model.model.layers:
        layer.self_attn = torch.nn.Identity()
    with pytest.raises(ConfigError, match="no linear layers in attention") as caught:
        Lora(target_modules="attention").apply(model)
    assert caught.value.key == "peft.target_modules"


def adapted_layers(model):
    return {name.partition(".lora_")[0].rpartition(".")[2] for name in trained(model)}


def test_all_linear_means_neither_experts_nor_routers(base, tmp_path, caplog):
    """Peft itself would take it for experts and routers, and then refuse dropout."""
    adapter = Lora(r=2, dropout=0.05)
    model = adapter.apply(load(base))
    found = adapted_layers(model)
    family = model.config.model_type
    assert not [name for name in trained(model) if ".experts." in name or ".mlp.gate." in name]
    shared = {"gate_proj", "up_proj", "down_proj"}
    assert shared <= found if family == "qwen2_moe" else not shared & found
    assert found >= {"o_proj"}
    assert ("peft cannot adapt" in caplog.text) == (family == "deepseek_v2")
    saved(adapter, model, tmp_path / "saved")
    again = PeftModel.from_pretrained(load(base), tmp_path / "saved", is_trainable=True)
    assert trained(again).keys() == trained(model).keys()


def test_names_that_peft_takes_for_those_of_experts_are_refused():
    with pytest.raises(ConfigError, match=r"use peft\.experts") as caught:
        Lora(target_modules=["q_proj", "down_proj"]).apply(tiny("deepseek_v2"))
    assert caught.value.key == "peft.target_modules"
    assert adapted_layers(Lora(target_modules=["down_proj"]).apply(tiny("llama"))) == {"down_proj"}


def test_a_router_that_is_named_is_adapted():
    model = Lora(r=2, dropout=0.0, target_modules=["q_proj", "gate"]).apply(tiny("mixtral"))
    assert adapted_layers(model) == {"q_proj", "gate"}


def test_a_linear_router_is_not_meant_by_all_linear():
    model = tiny("mixtral")
    for layer in model.model.layers:
        layer.mlp.add_module("gate", torch.nn.Linear(HIDDEN, EXPERTS, bias=False))
    assert routers(model) == [f"model.layers.{index}.mlp.gate" for index in range(LAYERS)]
    found = adapted_layers(Lora(r=2, dropout=0.0).apply(model))
    assert found == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_active_parameters_are_those_of_the_chosen_experts():
    model = tiny("mixtral")
    counts = parameter_counts(model)
    assert sum(p.numel() for _, p in expert_stacks(model)) == LAYERS * STACK
    assert counts.total - counts.active == LAYERS * STACK // 2
    assert str(counts).endswith(f"; {counts.active:,} of {counts.total:,} are active per token")


def test_active_parameters_of_adapters_on_experts():
    plain = parameter_counts(tiny("mixtral"))
    counts = parameter_counts(EVERYWHERE.apply(tiny("mixtral")))
    attention = 2 * 3 * sum((32 + 32, 32 + 16, 32 + 16, 32 + 32))
    on_experts = LAYERS * EXPERTS * 3 * (HIDDEN + 2 * INNER + INNER + HIDDEN)
    assert counts.trainable == attention + on_experts
    assert counts.active == plain.active + attention + on_experts // 2


def test_all_parameters_of_a_model_without_experts_are_active():
    counts = parameter_counts(tiny("llama"))
    assert counts.active == counts.total
    assert "active" not in str(counts)


def test_what_is_said_of_experts_that_are_not_quantised():
    said = describe_unquantized(tiny("mixtral").bfloat16())
    assert f"the {LAYERS * STACK:,} weights of experts" in said
    assert "stay in bfloat16" in said
    assert describe_unquantized(tiny("llama")) is None


def test_bitsandbytes_leaves_experts_as_they_are(base):
    """Where it no longer does, what is said of them and what a plan counts must change."""
    quantized = AutoModelForCausalLM.from_pretrained(base, quantization_config=FourBit().config())
    stacks = expert_stacks(quantized)
    assert stacks
    assert {parameter.ndim for _, parameter in stacks} == {3}
    assert all(parameter.is_floating_point() for _, parameter in stacks)
    assert quantized_layers(quantized)
