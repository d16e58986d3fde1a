from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from adapter_options import SIZES, nll, option, saved, train, trained
from model_families import gradients, largest_difference, random_text, tiny
from peft import PeftModel
from transformers import AutoModelForCausalLM

from mftrun.errors import ConfigError
from mftrun.models.adapters import Lora, parameter_counts
from mftrun.models.pretrained import Pretrained
from mftrun.models.quantization import EightBit, FourBit, Quantization, keep_differentiable, quantized_layers
from mftrun.models.recompute import recompute_activations
from mftrun.models.tiny import TinyLlama
from mftrun.models.tokenizers import train_bpe
from mftrun.models.verify import verify_against_logits, verify_packing
from mftrun.models.with_nll import ModelWithNll

pytest.importorskip("bitsandbytes")

QUANTISED = ["qlora", "qdora", "qlora8"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a small model, as one drawn at random is kept: with no tokenizer beside it."""
    folder = tmp_path_factory.mktemp("base")
    tiny("llama", vocab_size=300, **SIZES).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["def f(x): return x\n"] * 20, 270)


def load(base, tokenizer, quantization, dtype=torch.float32, storage=None):
    return Pretrained(str(base)).load(tokenizer, dtype, quantization.config(storage))


def backward(model):
    ModelWithNll(model)(*random_text().args()).nll.mean().backward()
    return gradients(model)


@pytest.mark.parametrize("name", QUANTISED)
def test_option_trains_and_is_saved_for_plain_peft(name, base, tokenizer, tmp_path):
    adapter = option(name)
    adapter.check()
    quantization = adapter.quantization
    torch.manual_seed(7)
    model = adapter.apply(load(base, tokenizer, quantization))
    assert model.training
    assert len(quantized_layers(model)) == 14
    verify_against_logits(model)
    verify_packing(model)
    assert train(model).problems() == []
    expected = nll(model)
    folder = saved(adapter, model, tmp_path / "saved")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    plain = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, quantization_config=quantization.config()
    )
    keep_differentiable(plain)  # the kernel for inference rounds otherwise
    torch.testing.assert_close(nll(PeftModel.from_pretrained(plain, folder)), expected)


def test_evaluation_takes_no_gradient_away(base, tokenizer):
    model = Lora(r=4, dropout=0.0, quantization=FourBit()).apply(load(base, tokenizer, FourBit()))
    train(model, steps=2, evaluate=False)
    before = backward(model)
    nll(model)
    assert largest_difference(backward(model), before) == 0


def test_the_trap_is_real(base, tokenizer):
    """Left alone, an evaluation repacks weights and later gradients are wrong; if not, nothing is proven."""
    from bitsandbytes.nn import modules

    if not modules.has_avx512bf16():
        pytest.skip("this CPU has no avx512_bf16")
    model = Lora(r=4, dropout=0.0, quantization=FourBit()).apply(load(base, tokenizer, FourBit()))
    train(model, steps=2, evaluate=False)
    before = backward(model)
    for _, module in quantized_layers(model):
        module.support_avx512bf16_for_cpu = True
    nll(model)
    after = backward(model)
    assert after.keys() == before.keys()  # counting gradients finds nothing
    assert largest_difference(after, before) > 0.1


@pytest.mark.parametrize("name", ["qlora", "qlora8"])
def test_recomputing_changes_no_gradient(name, base, tokenizer):
    adapter = option(name)
    model = adapter.apply(load(base, tokenizer, adapter.quantization))
    train(model, steps=2)
    expected = backward(model)
    assert expected.keys() == trained(model).keys()
    recompute_activations(model)
    assert largest_difference(backward(model), expected) <= 1e-5


def test_one_dtype_throughout_for_sharding(base, tokenizer):
    model = load(base, tokenizer, FourBit(), torch.bfloat16, torch.bfloat16)
    model = Lora(r=4, quantization=FourBit()).apply(model, adapter_dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert train(model).problems() == []


def test_adapters_are_in_32_bit_where_they_may_be(base, tokenizer):
    model = load(base, tokenizer, FourBit(), torch.bfloat16, torch.bfloat16)
    model = Lora(r=4, quantization=FourBit()).apply(model)
    assert {p.dtype for p in trained(model).values()} == {torch.float32}
    assert train(model).problems() == []


def test_packed_weights_count_as_what_they_hold(base, tokenizer):
    whole = sum(p.numel() for p in tiny("llama", vocab_size=300, **SIZES).parameters())
    for quantization in (FourBit(), EightBit()):
        assert parameter_counts(load(base, tokenizer, quantization)).total == whole


@pytest.mark.parametrize("double_quant", [True, False])
def test_bytes_of_four_bits(double_quant):
    import bitsandbytes

    quantization = FourBit(double_quant=double_quant)
    layer = bitsandbytes.nn.Linear4bit(
        1024, 1024, bias=False, quant_type="nf4", compress_statistics=double_quant
    ).to("cpu")
    held = sum(tensor.numel() * tensor.element_size() for tensor in layer.state_dict().values())
    assert held / 2**20 == pytest.approx(quantization.bytes_per_weight, rel=0.01)
    assert (quantization.bits, EightBit().bits, EightBit().bytes_per_weight) == (4, 8, 1)


def test_embeddings_of_a_quantised_model_grow(tmp_path, tokenizer):
    tiny("llama_tied", vocab_size=260).save_pretrained(tmp_path)
    model = load(tmp_path, tokenizer, FourBit())
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) > 260
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_model_drawn_at_random_is_quantised_from_its_folder(tmp_path, tokenizer):
    source = TinyLlama(hidden_size=64, num_hidden_layers=1, intermediate_size=64)
    assert (source.has_files, Pretrained(str(tmp_path)).has_files) == (False, True)
    source.load(tokenizer, torch.float32).save_pretrained(tmp_path)
    model = load(tmp_path, tokenizer, FourBit())
    assert model.name_or_path == str(tmp_path)
    assert len(quantized_layers(model)) == 7


def test_neighbours_matter_with_a_threshold(base, tokenizer):
    adapter = option("qlora8", quantization=None)
    model = adapter.apply(load(base, tokenizer, EightBit(threshold=6.0)))
    with pytest.raises(ConfigError, match="see each other"):
        verify_packing(model)


def test_weights_that_are_quantised_already_are_refused(base, tokenizer, tmp_path):
    load(base, tokenizer, FourBit()).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"quantised already \(bitsandbytes\)") as caught:
        Pretrained(str(tmp_path)).check()
    assert caught.value.key == "model.path"


def test_storage_that_the_strategy_needs():
    assert FourBit().config().bnb_4bit_quant_storage == torch.uint8
    assert FourBit().config(torch.bfloat16).bnb_4bit_quant_storage == torch.bfloat16
    chosen = FourBit(storage="float32")
    assert chosen.config(torch.uint8).bnb_4bit_quant_storage == torch.float32
    with pytest.raises(ConfigError, match="bfloat16, not float32") as caught:
        chosen.config(torch.bfloat16)
    assert caught.value.key == "peft.quantization.storage"
    EightBit().config(torch.uint8)
    with pytest.raises(ConfigError, match="peft=qlora"):
        EightBit().config(torch.bfloat16)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (FourBit, {"quant_type": "int4"}),
        (FourBit, {"compute_dtype": "float64"}),
        (FourBit, {"storage": "int8"}),
        (EightBit, {"threshold": -1.0}),
    ],
)
def test_impossible_settings(kind, settings):
    with pytest.raises(ConfigError) as caught:
        kind(**settings)
    assert caught.value.key == f"peft.quantization.{next(iter(settings))}"


@pytest.mark.parametrize("name", QUANTISED)
def test_library_that_is_missing(name, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "bitsandbytes" else found(name, *rest),
    )
    with pytest.raises(ConfigError, match=r"pip install \"mftrun\[qlora\]\"") as caught:
        option(name).check()
    assert caught.value.key == "peft.quantization"


def test_are_quantizations():
    assert isinstance(FourBit(), Quantization)
    assert isinstance(EightBit(), Quantization)
