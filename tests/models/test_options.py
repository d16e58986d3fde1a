"""The options of `model`: as the list of families says, with what they recommend, and what they refuse."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
import yaml
from model_families import tiny
from safetensors.torch import save_file

from mftrun.compose import compose
from mftrun.errors import ConfigError
from mftrun.models import families
from mftrun.models.families import FAMILIES, LEGACY_TYPES, families_of
from mftrun.models.pretrained import Pretrained
from mftrun.paths import resource_dir

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = sorted(path.stem for path in (resource_dir("conf") / "model").glob("*.yaml"))
CHATML, MFTCODER = "<|im_start|>user\n", "<s>human\n"


def checkpoint(folder, **config):
    (folder / "config.json").write_text(json.dumps(config))
    save_file({}, folder / "model.safetensors")
    return str(folder)


def refusal(source, action="check"):
    with pytest.raises(ConfigError) as caught:
        getattr(source, action)()
    assert caught.value.key == "model.path"
    return caught.value.message


def test_every_family_has_an_option():
    assert sorted([*FAMILIES, "auto", "tiny"]) == OPTIONS


@pytest.mark.parametrize("option", FAMILIES)
def test_an_option_is_what_the_list_says(option):
    node = yaml.safe_load((resource_dir("conf") / "model" / f"{option}.yaml").read_text())
    family = FAMILIES[option]
    assert tuple(node["model_types"]) == family.accepted
    assert node["path"].count("/") == 1  # owner/name
    assert (node.get("adapter_targets") == "attention") == family.experts


def test_the_page_has_the_table():
    assert families.table() in (ROOT / "docs" / "models.md").read_text()


def test_legacy_architectures_are_those_that_can_be_converted():
    from mftrun import conversion

    assert conversion.LEGACY_TYPES == LEGACY_TYPES


# What a model's option recommends, and everything that is to win over it.
@pytest.mark.parametrize(
    ("overrides", "prefix"),
    [
        (["model=llama"], MFTCODER),
        (["model=qwen"], CHATML),
        (["model=qwen2"], CHATML),
        (["model=qwen2_moe"], CHATML),
        (["model=qwen3"], CHATML),
        (["model=qwen3_moe"], CHATML),
        (["experiment=quick", "model=qwen3"], CHATML),
        (["model=qwen3", "template=mftcoder"], MFTCODER),
        (["template=mftcoder", "model=qwen3"], MFTCODER),
        (["model=qwen3", "template.user_prefix=X"], "X"),
    ],
)
def test_the_recommended_template(overrides, prefix):
    assert compose(overrides)["template"]["user_prefix"] == prefix


@pytest.mark.parametrize(
    ("choices", "overrides", "prefix"),
    [
        (["model: qwen3"], [], CHATML),
        (["model: qwen3", "template: mftcoder"], [], MFTCODER),
        (["template: mftcoder"], ["model=qwen3"], MFTCODER),
        (["model: qwen3"], ["model=llama"], MFTCODER),
        (["model: llama", "template: chatml"], [], CHATML),
    ],
)
def test_an_experiment_wins_over_the_recommended_template(tmp_path, choices, overrides, prefix):
    (tmp_path / "experiment").mkdir()
    lines = "".join(f"  - override /{choice}\n" for choice in choices)
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\ndefaults:\n{lines}")
    arguments = [f"hydra.searchpath=[{tmp_path}]", "experiment=mine", *overrides]
    assert compose(arguments)["template"]["user_prefix"] == prefix


@pytest.mark.parametrize("option", ["llama", "mixtral", "gemma2"])
def test_what_adapters_are_for(option):
    experts = FAMILIES[option].experts
    targets = compose([f"model={option}", "peft=lora"])["peft"]["target_modules"]
    assert targets == ("attention" if experts else "all-linear")
    named = compose([f"model={option}", "peft=lora", "peft.target_modules=[q_proj]"])
    assert named["peft"]["target_modules"] == ["q_proj"]
    assert compose(["model=tiny", "peft=lora"])["peft"]["target_modules"] == "all-linear"


def test_the_options_of_an_architecture():
    names = [family.option for family in families_of("llama")]
    assert names == ["llama", "code_llama", "deepseek"]
    assert [family.option for family in families_of("llama", "aquila")] == ["aquila2"]
    assert [family.option for family in families_of("chatglm")] == ["chatglm2", "chatglm3", "codegeex2"]
    assert families_of("gpt_neo") == ()


@pytest.mark.parametrize("legacy", sorted(LEGACY_TYPES))
def test_an_unconverted_checkpoint_comes_with_the_command(tmp_path, legacy):
    path = checkpoint(tmp_path, model_type=legacy)
    (family, *_) = families_of(legacy)
    for model_types in (None, family.accepted):
        message = refusal(Pretrained(path, model_types=model_types))
        assert f"python -m mftrun job=convert source={path} output=DIR" in message
        assert f"model={family.option}" in message
    assert f"use model={family.option}" in refusal(Pretrained(path, model_types=["mistral"]))
    Pretrained(path, model_types=family.accepted, trust_remote_code=True).check()


def test_a_trained_checkpoint_still_says_what_it_was_converted_from(tmp_path):
    tiny("llama", converted_from="aquila").save_pretrained(tmp_path)
    Pretrained(str(tmp_path), model_types=FAMILIES["aquila2"].accepted).check()


def test_a_converted_checkpoint_is_taken_and_no_other_of_its_class(tmp_path):
    path = checkpoint(tmp_path, model_type="llama", converted_from="aquila")
    Pretrained(path, model_types=FAMILIES["aquila2"].accepted).check()
    Pretrained(path, model_types=["llama"]).check()  # which it is
    message = refusal(Pretrained(path, model_types=FAMILIES["baichuan2"].accepted))
    assert message.endswith("a llama model converted from aquila, not baichuan or llama; use model=aquila2")
    path = checkpoint(tmp_path, model_type="llama")
    assert "use model=llama" in refusal(Pretrained(path, model_types=FAMILIES["aquila2"].accepted))


def test_an_unconverted_checkpoint_can_be_planned(tmp_path):
    config = {
        "model_type": "qwen",
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "kv_channels": 8,
        "intermediate_size": 96,
        "seq_length": 64,
        "max_position_embeddings": 64,
        "rotary_emb_base": 10000,
        "layer_norm_epsilon": 1e-6,
        "no_bias": True,
        "tie_word_embeddings": False,
    }
    source = Pretrained(checkpoint(tmp_path, **config), model_types=FAMILIES["qwen"].accepted)
    model = source.skeleton(96, torch.float32)
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.device.type == "meta"
    assert model.config.intermediate_size == 48


def test_trusted_code_is_named_before_it_runs(tmp_path, caplog):
    auto_map = {"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "a/b--modeling_x.XModel"}
    path = checkpoint(tmp_path, model_type="x", auto_map=auto_map)
    tokenizer = {"auto_map": {"AutoTokenizer": ["tokenization_x.XTokenizer", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    caplog.set_level(logging.WARNING)
    Pretrained(path, trust_remote_code=True).check()
    assert caplog.text.count("runs here, unchecked") == 1
    for named in (
        path,
        "configuration_x.py (XConfig)",
        "modeling_x.py (XModel) of a/b",
        "tokenization_x.py (XTokenizer)",
    ):
        assert named in caplog.text
    assert "None" not in caplog.text


def test_trusting_a_model_that_brings_no_code(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    Pretrained(checkpoint(tmp_path, model_type="llama"), trust_remote_code=True).check()
    assert "names no code of its own, so none runs" in caplog.text
