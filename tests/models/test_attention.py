"""Which attention a model runs with: what is refused, what `auto` takes, what the list of families says."""

from __future__ import annotations

import json
import logging

import pytest
import torch
import torch.nn.functional as F
import transformers
from model_families import tiny
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mftrun.errors import ConfigError
from mftrun.models import attention
from mftrun.models.families import ATTENTION, FAMILIES
from mftrun.models.pretrained import Pretrained, settle_attention
from mftrun.models.tiny import TinyLlama
from mftrun.models.tokenizers import train_bpe
from mftrun.models.verify import verify_packing

TYPES = list(dict.fromkeys(kind for family in FAMILIES.values() for kind in family.model_types))
BF16 = torch.bfloat16


@pytest.fixture
def gpu(monkeypatch):
    """A machine with one GPU of a generation, and flash attentions as if they were installed."""

    def make(capability=(9, 0), installed=("2", "3")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        for number in "23":
            found = number in installed
            monkeypatch.setattr(
                transformers.utils, f"is_flash_attn_{number}_available", lambda found=found: found
            )

    return make


def config_of(folder, model_type, **more):
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **more}))
    return str(folder)


@pytest.mark.parametrize(("model_type", "expected"), [("llama", "sdpa"), ("gemma2", "eager")])
def test_auto_on_a_cpu(model_type, expected):
    choice = attention.choose("auto", model_type, torch.float32)
    assert choice.name == expected
    assert "not flash_attention_2: there is no GPU" in choice.reason


@pytest.mark.parametrize(
    ("model_type", "machine", "expected"),
    [
        ("llama", {}, "flash_attention_3"),
        ("llama", {"capability": (8, 0)}, "flash_attention_2"),
        ("llama", {"capability": (10, 0)}, "flash_attention_2"),
        ("llama", {"capability": (7, 5)}, "sdpa"),
        ("llama", {"installed": ("2",)}, "flash_attention_2"),
        ("llama", {"installed": ()}, "sdpa"),
        ("gemma2", {}, "flash_attention_3"),
        ("gemma2", {"installed": ()}, "eager"),
        ("gpt_bigcode", {}, "sdpa"),  # packed samples would see each other
        ("cohere", {}, "sdpa"),  # not known
    ],
)
def test_auto_on_a_gpu(gpu, model_type, machine, expected):
    gpu(**machine)
    assert attention.choose("auto", model_type, BF16).name == expected


def test_auto_in_32_bit(gpu):
    gpu()
    choice = attention.choose("auto", "llama", torch.float32)
    assert choice.name == "sdpa"
    assert "computes in 16 bit alone" in choice.reason


@pytest.mark.parametrize(
    ("name", "model_type", "words"),
    [
        ("sdpa", "gemma2", "use flash_attention_3, flash_attention_2, flex or eager"),
        ("flex", "gpt_bigcode", "do not have flex"),
        ("flash_attention_2", "llama", "there is no GPU"),
        ("flash_attention_3", "llama", "there is no GPU"),
        ("flex", "llama", "cannot be trained on a CPU"),
    ],
)
def test_a_named_one_that_does_not_work_is_refused(name, model_type, words):
    with pytest.raises(ConfigError) as refused:
        attention.choose(name, model_type, BF16)
    assert refused.value.key == "model.attention"
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flash_attention_2", 'pip install "mftrun[flash-attn]"'),
        ("flash_attention_3", "flash-attention/hopper"),
    ],
)
def test_a_missing_package_comes_with_its_command(gpu, monkeypatch, name, words):
    gpu(installed=())
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda module: None)
    for refuse in (
        lambda: attention.choose(name, "llama", BF16),
        lambda: attention.check_named(name, "llama"),
    ):
        with pytest.raises(ConfigError) as refused:
            refuse()
        assert words in refused.value.message


def test_a_named_one_in_32_bit_is_refused_once_the_precision_is_known(gpu, tmp_path):
    gpu()
    source = Pretrained(config_of(tmp_path, "llama"), attention="flash_attention_2")
    assert settle_attention(source, BF16) == source
    with pytest.raises(ConfigError, match=r"train\.precision=bf16"):
        settle_attention(source, torch.float32)


def test_auto_is_settled_and_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = settle_attention(Pretrained(config_of(tmp_path, "gemma2")), BF16)
    assert source == Pretrained(str(tmp_path), attention="eager")
    assert "attention: eager (auto; not flash_attention_3: there is no GPU" in caplog.text
    assert settle_attention(TinyLlama(), BF16) == TinyLlama()


def test_code_of_its_own_chooses_for_itself(tmp_path):
    auto_map = {"AutoModelForCausalLM": "modeling_x.X"}
    source = Pretrained(config_of(tmp_path, "x", auto_map=auto_map), trust_remote_code=True)
    assert settle_attention(source, BF16) is source


@pytest.mark.parametrize("model_type", TYPES)
def test_the_list_says_what_the_classes_have(model_type):
    found = attention.native_class(model_type)
    (family, *_) = (family for family in FAMILIES.values() if model_type in family.model_types)
    assert [name for name in ATTENTION if attention.supports(found, name)] == list(family.attention)
    if model_type == family.model_types[0]:
        assert found.__name__ == family.native_class


def flash_in_plain_words(
    module, query, key, value, attention_mask, scaling=None, position_ids=None, **others
):
    """What flash attention computes of a single row: segments begin where positions that reach it are 0."""
    assert attention_mask is None
    length = query.shape[2]
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    if position_ids is not None:
        segment = (position_ids.flatten() == 0).cumsum(0)
        allowed &= segment[:, None] == segment[None]
    groups = query.shape[1] // key.shape[1]
    repeated = (states.repeat_interleave(groups, 1) for states in (key, value))
    out = F.scaled_dot_product_attention(query, *repeated, attn_mask=allowed, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


@pytest.mark.parametrize("model_type", TYPES)
def test_flash_attention_is_told_where_segments_begin_or_the_list_says_so(model_type, monkeypatch):
    name = "flash_attention_2"
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, name, flash_in_plain_words)
    model = tiny(model_type)
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation_internal = name
    (family, *_) = (family for family in FAMILIES.values() if model_type in family.model_types)
    if name in family.leaks:
        with pytest.raises(ConfigError, match="see each other"):
            verify_packing(model)
    else:
        assert verify_packing(model) < 1e-5


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_packed_rows_that_would_leak_are_refused_early(tmp_path, name):
    source = Pretrained(config_of(tmp_path, "gpt_bigcode"), attention="flash_attention_2")
    with pytest.raises(ConfigError, match="use rows=padding") as refused:
        attention.check_isolation(source, shares_rows=True)
    assert refused.value.key == "rows"
    attention.check_isolation(source, shares_rows=False)
    attention.check_isolation(Pretrained(str(tmp_path), attention=name), shares_rows=True)
    attention.check_isolation(TinyLlama(), shares_rows=True)


def test_what_a_model_is_loaded_with(tmp_path):
    tiny("gemma2").save_pretrained(tmp_path)
    train_bpe(["text"], 258).save_pretrained(tmp_path)
    source = Pretrained(str(tmp_path))
    model = source.load(source.tokenizer(lambda: iter(())), torch.float32)
    assert model.config._attn_implementation == "eager"
    assert source.skeleton(258, torch.float32).config._attn_implementation == "eager"
