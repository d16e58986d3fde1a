from __future__ import annotations

import json

import peft
import pytest
import torch
from adapter_options import OPTIONS, SIZES, nll, option, saved, train, trained
from gradient_record import GradientRecord
from model_families import gradients, largest_difference, random_text, tiny
from peft import PeftModel
from transformers import AutoModelForCausalLM

from mftrun.errors import ConfigError
from mftrun.models.adapters import Adapter, FullFineTuning, Lora, PeftMethod, parameter_counts
from mftrun.models.quantization import EightBit, FourBit
from mftrun.models.recompute import recompute_activations
from mftrun.models.with_nll import ModelWithNll
from mftrun.paths import resource_dir

UNQUANTISED = [name for name in OPTIONS if not name.startswith("q")]
MOVING = ["pissa", "olora"]
CHANGES = {"shira": {"r": 8}}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a small model."""
    folder = tmp_path_factory.mktemp("base")
    tiny("llama", **SIZES).save_pretrained(folder)
    return folder


def load(base, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(base, dtype=dtype).train()


def adapted(adapter, base, **arguments):
    torch.manual_seed(7)
    return adapter.apply(load(base), **arguments)


@pytest.mark.parametrize("name", UNQUANTISED)
def test_option_trains_and_goes_on_and_is_saved_for_plain_peft(name, base, tmp_path):
    adapter = option(name, **CHANGES.get(name, {}))
    model = adapted(adapter, base)
    assert train(model).problems() == []
    found = nll(model)
    assert (found - nll(load(base))).abs().max() > 0.1

    again = adapted(adapter, base)
    again.load_state_dict({key: p.detach() for key, p in trained(model).items()}, strict=False)
    assert torch.equal(nll(again), found)

    folder = saved(adapter, model, tmp_path / "saved")
    plain = load(folder) if name == "none" else PeftModel.from_pretrained(load(base), folder)
    torch.testing.assert_close(nll(plain), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("name", MOVING)
def test_adapters_that_start_inside_the_weights_are_saved_as_plain_ones(name, use_rslora, base, tmp_path):
    adapter = option(name, use_rslora=use_rslora, r=8)
    assert adapter.reads_weights
    model = adapted(adapter, base)
    torch.testing.assert_close(nll(model), nll(load(base)), rtol=1e-4, atol=1e-4)
    assert train(model).problems() == []
    gathered = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        expected = nll(model)
        for parameter in trained(model).values():
            parameter.zero_()  # the rank holds nothing but its slices
    folder = saved(adapter, model, tmp_path / "saved", state_dict=gathered)
    written = json.loads((folder / "adapter_config.json").read_text())
    assert (written["r"], written["init_lora_weights"]) == (16, True)
    assert written["base_model_name_or_path"] == str(base)
    assert model.peft_config["default"].r == 8
    plain = PeftModel.from_pretrained(load(base), folder)
    torch.testing.assert_close(nll(plain), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["lora", "vera", "none"])
def test_saving_gathered_weights(name, base, tmp_path):
    adapter = option(name)
    model = adapted(adapter, base)
    train(model)
    expected = nll(model)
    gathered = {key: value.clone() for key, value in model.state_dict().items()}
    for parameter in trained(model).values():
        parameter.data.zero_()
    folder = saved(adapter, model, tmp_path / "saved", state_dict=gathered)
    plain = load(folder) if name == "none" else PeftModel.from_pretrained(load(base), folder)
    torch.testing.assert_close(nll(plain), expected)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize(
    "adapter",
    [Lora(r=4, modules_to_save=["lm_head", "embed_tokens"]), option("dora", r=4), option("ln_tuning")],
    ids=["whole layers", "dora", "ln_tuning"],
)
def test_dtype_of_adapters_on_16_bit_weights(adapter, dtype, base):
    model = adapter.apply(load(base, torch.bfloat16), adapter_dtype=dtype)
    assert {p.dtype for p in trained(model).values()} == {dtype or torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert train(model).problems() == []


def test_recomputing_changes_no_gradient(base):
    model = adapted(option("dora", r=4), base)
    train(model, steps=2)
    ModelWithNll(model)(*random_text().args()).nll.mean().backward()
    expected = gradients(model)
    assert expected.keys() == trained(model).keys()
    recompute_activations(model)
    ModelWithNll(model)(*random_text().args()).nll.mean().backward()
    assert largest_difference(gradients(model), expected) <= 1e-5


def test_gradients_that_go_missing_are_named():
    record = GradientRecord()
    zero, one = torch.zeros(2), torch.ones(2)
    record.add({"a": zero, "b": one, "c": one, "d": zero}.items())
    record.add({"a": one, "b": None, "c": one / 0, "d": zero}.items())
    assert record.problems() == [
        "b has no gradient",
        "c has a gradient that is not finite",
        "d has had no gradient but zero",
    ]


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
        ({"init": "pisa"}, "init"),
        ({"init": "pissa_niter_0"}, "init"),
        ({"init": "eva"}, "init"),
        ({"init": "olora", "use_dora": True}, "use_dora"),
        ({"init": "pissa", "quantization": FourBit()}, "init"),
        ({"use_dora": True, "quantization": EightBit()}, "use_dora"),
    ],
)
def test_impossible_settings(settings, key):
    with pytest.raises(ConfigError) as caught:
        Lora(**settings)
    assert caught.value.key == f"peft.{key}"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (peft.PromptTuningConfig(num_virtual_tokens=4), "PROMPT_TUNING is not known to work"),
        (peft.LoraConfig(), "peft=lora"),
        (3, "not known to work"),
    ],
)
def test_methods_that_are_refused(config, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        PeftMethod(config)
    assert caught.value.key == "peft.config"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"target_modules": ["q_prj"]}, "peft.config.target_modules"),
        ({"target_modules": "q_prj"}, "peft.config.target_modules"),
        ({"modules_to_save": ["lm_heat"]}, "peft.config.modules_to_save"),
        ({"block_size": 37}, "peft.config"),
    ],
)
def test_methods_that_do_not_fit_the_model(changes, key, base):
    with pytest.raises(ConfigError) as caught:
        option("c3a", **changes).apply(load(base))
    assert caught.value.key == key


def test_a_single_name_of_a_method_is_no_expression(base):
    model = option("c3a", target_modules="q_proj").apply(load(base))
    assert {name.split(".")[6] for name in trained(model)} == {"q_proj"}


@pytest.mark.parametrize("excluded", [["v_proj", "layers.1.mlp.up_proj"], r".*v_proj|.*1\.mlp\.up_proj"])
def test_what_is_excluded_is_so_beside_towers(excluded):
    """Those of models with vision parts are left out anyway."""
    config = peft.LoHaConfig(r=2, target_modules="all-linear", exclude_modules=excluded)
    model = PeftMethod(config).apply(tiny("gemma3"))
    on = {name.partition("language_model.")[2].partition(".hada")[0] for name in trained(model)}
    assert {f"layers.{layer}.self_attn.q_proj" for layer in (0, 1)} | {"layers.0.mlp.up_proj"} <= on
    assert not [path for path in on if "v_proj" in path or path in ("", "layers.1.mlp.up_proj")]


def test_unknown_layer_to_exclude(base):
    config = peft.LoHaConfig(r=2, target_modules="all-linear", exclude_modules=["v_proj", "v_prj"])
    with pytest.raises(ConfigError, match="did you mean v_proj") as caught:
        PeftMethod(config).apply(load(base))
    assert caught.value.key == "peft.config.exclude_modules"


def test_are_adapters():
    assert isinstance(Lora(), Adapter)
    assert isinstance(FullFineTuning(), Adapter)
    assert isinstance(option("ia3"), Adapter)


@pytest.mark.parametrize("name", OPTIONS)
def test_option_is_documented(name):
    assert f"`peft={name}`" in (resource_dir("conf").parent / "docs" / "adapters.md").read_text()
