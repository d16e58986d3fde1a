"""A family whose head is computed otherwise than its own way is refused, never silently wrong."""

from __future__ import annotations

import pytest
import torch
from model_families import FAMILIES, tiny
from peft import LoraConfig, get_peft_model

from mftrun.errors import ConfigError
from mftrun.models.heads import ChunkedHead
from mftrun.models.verify import check_length, verify_against_logits, verify_packing


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes(family):
    assert verify_against_logits(tiny(family)) <= 1e-5


@pytest.mark.parametrize("family", ["gemma2", "cohere", "granite"])
def test_forgotten_scale_or_cap_is_refused(family):
    with pytest.raises(ConfigError, match=family):
        verify_against_logits(tiny(family), ChunkedHead())


def test_unknown_arithmetic_is_refused():
    """A family with a scale of its own, under a name that nobody listed."""
    model = tiny("cohere")
    model.config.model_type = "new_family"
    with pytest.raises(ConfigError, match=r"new_family.*not supported.*differ"):
        verify_against_logits(model)


def test_a_decoder_of_another_interface_is_refused():
    model = tiny("llama")
    model.get_decoder = lambda: model.lm_head
    with pytest.raises(ConfigError, match="not supported: TypeError"):
        verify_against_logits(model)


def test_a_model_without_parts_is_refused():
    model = tiny("llama")
    model.get_decoder = lambda: model
    with pytest.raises(ConfigError, match="no separate decoder"):
        verify_against_logits(model)
    model = tiny("llama")
    model.get_output_embeddings = lambda: None
    with pytest.raises(ConfigError, match="no output head"):
        verify_against_logits(model)


def test_dropout_does_not_disturb_it_and_it_leaves_no_trace():
    settings = LoraConfig(
        r=4, target_modules=["q_proj", "lm_head"], lora_dropout=0.5, init_lora_weights=False
    )
    model = get_peft_model(tiny("llama"), settings)
    before = torch.get_rng_state()
    verify_against_logits(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(module.training for module in model.modules())


def test_low_precision_passes():
    verify_against_logits(tiny("gemma2").bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_family_whose_packed_segments_see_each_other_is_refused_in_any_precision(dtype):
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=61, hidden_size=32, n_layer=2, n_head=4)).to(dtype)
    with pytest.raises(ConfigError, match=r"bloom.*rows=padding"):
        verify_packing(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_isolated_families_pass_in_any_precision(family, dtype):
    verify_packing(tiny(family).to(dtype))


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_rows_length_are_refused(kind):
    model = tiny("llama")
    model.config.rope_parameters = {"rope_type": kind, "original_max_position_embeddings": 16}
    check_length(model, 16)
    with pytest.raises(ConfigError, match=r"data\.max_length.*16 or less"):
        check_length(model, 17)
