from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from model_families import tiny
from safetensors.torch import load_file, save_file

from mftrun.errors import ConfigError
from mftrun.models.base import ModelSource
from mftrun.models.pretrained import Pretrained
from mftrun.models.tokenizers import END, train_bpe
from mftrun.models.verify import verify_against_logits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A complete model folder, whose embeddings have fewer rows than the tokenizer has entries."""
    path = tmp_path_factory.mktemp("llama")
    train_bpe(["def f(x): return x\n"] * 20, 270).save_pretrained(path)
    tiny("llama_tied", vocab_size=260).save_pretrained(path)
    return path


def copy_of(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def refusal(model: Pretrained, action: str = "check") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        model.check() if action == "check" else model.load(model.tokenizer(lambda: iter(())), torch.float32)
    return caught.value


def test_loads_trains_and_grows(folder):
    source = Pretrained(str(folder), model_types=["llama"])
    assert isinstance(source, ModelSource)
    source.check()
    tokenizer = source.tokenizer(lambda: iter(()), ["<ignored>"])
    assert "<ignored>" not in tokenizer.get_vocab()
    model = source.load(tokenizer, torch.float32)
    assert model.training
    assert model.dtype == torch.float32
    assert model.config._attn_implementation == "sdpa"
    assert model.get_input_embeddings().num_embeddings == model.config.vocab_size == len(tokenizer) > 260
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    verify_against_logits(model)


def test_dtype(folder):
    tokenizer = Pretrained(str(folder)).tokenizer(lambda: iter(()))
    assert Pretrained(str(folder), dtype="bfloat16").load(tokenizer, torch.float32).dtype == torch.bfloat16
    assert Pretrained(str(folder)).load(tokenizer, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("path", ["/nowhere/at/all", "nowhere", "~/no/such/folder", "a/b/c"])
def test_no_such_folder(path):
    error = refusal(Pretrained(path))
    assert error.key == "model.path"
    assert "not a folder" in error.message


def test_unknown_on_the_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refusal(Pretrained("nobody/nothing"))
    assert error.key == "model.path"
    assert "neither a local folder nor" in error.message


def test_empty_folder(tmp_path):
    assert "no config.json" in refusal(Pretrained(str(tmp_path))).message


def test_adapter_folder(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "base model" in refusal(Pretrained(str(tmp_path))).message


@pytest.mark.parametrize("content", ["{", "\xff"])
def test_broken_config(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    assert "cannot be read" in refusal(Pretrained(str(tmp_path))).message


def test_config_without_a_type(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert "no model_type" in refusal(Pretrained(str(tmp_path))).message


def test_another_architecture_names_the_option(folder, tmp_path):
    error = refusal(Pretrained(str(folder), model_types=["mistral", "mixtral"]))
    assert error.key == "model.path"
    found = "holds a llama model, not mistral or mixtral; use model=llama, model=code_llama or model=deepseek"
    assert error.message.endswith(found)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_neo"}))
    assert refusal(Pretrained(str(tmp_path), model_types=["llama"])).message.endswith("use model=auto")


@pytest.mark.parametrize("model_type", ["baichuan", "clip"])
def test_no_class_for_the_architecture(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert "trust_remote_code" in refusal(Pretrained(str(tmp_path))).message


def test_no_weights(folder, tmp_path):
    copy_of(folder, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "no weights" in refusal(Pretrained(str(tmp_path))).message


def test_missing_weights_are_not_drawn_at_random(folder, tmp_path):
    file = copy_of(folder, tmp_path) / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    error = refusal(Pretrained(str(tmp_path)), "load")
    assert error.key == "model.path"
    assert "model.layers.1.mlp.up_proj.weight" in error.message


def test_weights_of_another_size(folder, tmp_path):
    copy_of(folder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    assert refusal(Pretrained(str(tmp_path)), "load").key == "model.path"


def test_weights_cut_short(folder, tmp_path):
    file = copy_of(folder, tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert f"{file} is cut off" in refusal(Pretrained(str(tmp_path))).message


def test_no_tokenizer(folder, tmp_path):
    copy_of(folder, tmp_path)
    for file in tmp_path.glob("token*"):
        file.unlink()
    with pytest.raises(ConfigError, match="tokenizer") as caught:
        Pretrained(str(tmp_path)).tokenizer(lambda: iter(()))
    assert caught.value.key == "model.path"


def test_end_token_stands_in_for_padding(folder, tmp_path):
    copy_of(folder, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert Pretrained(str(tmp_path)).tokenizer(lambda: iter(())).pad_token == END


def test_end_and_pad_tokens_of_the_option(folder):
    source = Pretrained(str(folder), end_token="<|pad|>", pad_token=END)
    tokenizer = source.tokenizer(lambda: iter(()))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|pad|>", END)
    assert len(tokenizer) == len(Pretrained(str(folder)).tokenizer(lambda: iter(())))
    model = source.load(tokenizer, torch.float32)
    assert model.config.pad_token_id == tokenizer.pad_token_id == tokenizer.get_vocab()[END]


def test_the_pad_token_reaches_the_config_of_the_language_part(tmp_path):
    tiny("gemma3", vocab_size=300).save_pretrained(tmp_path)
    train_bpe(["text"], 270).save_pretrained(tmp_path)
    source = Pretrained(str(tmp_path), pad_token="<|pad|>")
    tokenizer = source.tokenizer(lambda: iter(()))
    model = source.load(tokenizer, torch.float32)
    own = tokenizer.get_vocab()["<|pad|>"]
    assert (model.config.pad_token_id, model.config.text_config.pad_token_id) == (own, own)


@pytest.mark.parametrize("key", ["end_token", "pad_token"])
def test_a_token_that_the_tokenizer_lacks(folder, key):
    with pytest.raises(ConfigError, match="use null for the tokenizer's own") as caught:
        Pretrained(str(folder), **{key: "<nowhere>"}).tokenizer(lambda: iter(()))
    assert caught.value.key == f"model.{key}"
    assert END in caught.value.message


def test_attention_that_the_family_lacks(tmp_path):
    tiny("gemma2").save_pretrained(tmp_path)
    train_bpe(["text"], 258).save_pretrained(tmp_path)
    for action in ("check", "load"):
        error = refusal(Pretrained(str(tmp_path), attention="sdpa"), action)
        assert error.key == "model.attention"
        assert "flex or eager" in error.message


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed")
def test_flash_attention_that_is_not_installed(folder):
    error = refusal(Pretrained(str(folder), attention="flash_attention_2"))
    assert error.key == "model.attention"
    assert "mftrun[flash-attn]" in error.message


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is not None, reason="liger is installed")
def test_liger_that_is_not_installed(folder):
    error = refusal(Pretrained(str(folder), head="liger"))
    assert error.key == "model.head"
    assert "mftrun[liger]" in error.message
