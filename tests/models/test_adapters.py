from __future__ import annotations

import pytest
import torch
from model_families import random_text, tiny
from peft import PeftModel

from mftrun.errors import ConfigError
from mftrun.models.adapters import Adapter, FullFineTuning, Lora, parameter_counts
from mftrun.models.with_nll import ModelWithNll


def test_full_fine_tuning_trains_everything():
    model = tiny("llama").requires_grad_(False)
    assert FullFineTuning().apply(model) is model
    counts = parameter_counts(model)
    assert counts.total == counts.trainable == sum(p.numel() for p in model.parameters())


def test_lora_defaults():
    model = Lora().apply(tiny("llama"))
    assert isinstance(model, PeftModel)
    config = model.active_peft_config
    assert (config.r, config.lora_alpha, config.lora_dropout) == (96, 32, 0.05)
    adapted = {
        name.split(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_modules() if "lora_A." in name
    }
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name} == set()


def test_lora_counts():
    plain = tiny("llama")
    total = parameter_counts(plain).total
    counts = parameter_counts(Lora(r=4, target_modules=["q_proj"]).apply(plain))
    assert counts.trainable == 2 * 4 * (32 + 32)
    assert counts.total == total + counts.trainable


def test_lora_trains_only_adapters():
    model = Lora(r=4, dropout=0.0).apply(tiny("llama"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    wrapped = ModelWithNll(model)
    losses = []
    for _ in range(3):
        loss = wrapped(*random_text().args()).nll.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0]
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)


def test_layers_trained_in_full_besides():
    model = Lora(r=4, target_modules="q_proj", modules_to_save=["lm_head"]).apply(tiny("llama"))
    ModelWithNll(model)(*random_text().args()).nll.mean().backward()
    head = next(p for name, p in model.named_parameters() if "lm_head.modules_to_save" in name)
    assert float(head.grad.abs().sum()) > 0


@pytest.mark.parametrize("names", [["q_proj", "v_prj"], ["v_prj"], "v_prj"])
def test_unknown_layer_is_refused_with_the_nearest(names):
    with pytest.raises(ConfigError, match="did you mean v_proj") as caught:
        Lora(target_modules=names).apply(tiny("llama"))
    assert caught.value.key == "peft.target_modules"


def test_unknown_layer_to_save():
    with pytest.raises(ConfigError, match="lm_head") as caught:
        Lora(modules_to_save=["lm_heat"]).apply(tiny("llama"))
    assert caught.value.key == "peft.modules_to_save"


def test_layer_that_cannot_be_adapted():
    with pytest.raises(ConfigError, match="cannot be adapted") as caught:
        Lora(target_modules=["input_layernorm"]).apply(tiny("llama"))
    assert caught.value.key == "peft.target_modules"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"r": 0}, "r"),
        ({"alpha": 0}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"target_modules": []}, "target_modules"),
    ],
)
def test_impossible_settings(settings, key):
    with pytest.raises(ConfigError) as caught:
        Lora(**settings)
    assert caught.value.key == f"peft.{key}"


def test_are_adapters():
    assert isinstance(Lora(), Adapter)
    assert isinstance(FullFineTuning(), Adapter)
