"""A family whose head is computed otherwise than its own way is refused, never silently wrong."""

from __future__ import annotations

import pytest
import torch
from model_families import FAMILIES, tiny
from peft import LoraConfig, get_peft_model

from mftrun.errors import ConfigError
from mftrun.models.heads import ChunkedHead
from mftrun.models.verify import verify_against_logits


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
