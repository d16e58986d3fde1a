"""Every option of `model`, trained in full, with LoRA and with QLoRA: from its files and back to files."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from family_checkpoints import CASES, ROWS, FamilyRun, nll, two_steps, write_checkpoint
from model_families import FAMILIES, largest_difference, random_text, tiny

from mftrun.models.parts import beside_text, causal_lm_of
from mftrun.models.quantization import quantized_layers
from mftrun.models.with_nll import ModelWithNll

pytest.importorskip("bitsandbytes")


# Settings of a tiny model, and values that would take their feature away.
SETTINGS = [
    ("mistral", "sliding_window", 64),
    ("mixtral", "sliding_window", 64),
    ("starcoder2", "sliding_window", 64),
    ("phi3", "sliding_window", 64),
    ("gemma2", "sliding_window", 64),
    ("gemma2", "attn_logit_softcapping", None),
    ("gemma2", "final_logit_softcapping", None),
    ("gemma3_text", "sliding_window", 64),
    ("gemma3_text", "final_logit_softcapping", None),
    ("granite", "logits_scaling", 1.0),
    ("granite", "residual_multiplier", 1.0),
    ("granite", "embedding_multiplier", 1.0),
    ("granite", "attention_multiplier", 0.35),
]
# Weights that make up a feature, by the ends of their names.
WEIGHTS = [
    ("qwen2", "q_proj.bias"),
    ("glm", "k_proj.bias"),
    ("phi", "fc1.bias"),
    ("phi", "lm_head.bias"),
    ("starcoder2", "c_fc.bias"),
    ("gpt_neox", "query_key_value.bias"),
    ("gpt_bigcode", "wpe.weight"),
    ("qwen3", "q_norm.weight"),
    ("gemma3_text", "k_norm.weight"),
    ("olmo2", "q_norm.weight"),
    ("glm4", "post_mlp_layernorm.weight"),
    ("mixtral", "experts.down_proj"),
    ("mixtral", "mlp.gate.weight"),
    ("qwen2_moe", "shared_expert.down_proj.weight"),
    ("qwen3_moe", "experts.gate_up_proj"),
    ("deepseek_v2", "shared_experts.down_proj.weight"),
    ("deepseek_v3", "experts.down_proj"),
    ("deepseek_v3", "kv_b_proj.weight"),
]
CELLS = [(case, adapter) for case in CASES for adapter in case.adapters]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a case's checkpoint, written when it is first asked for."""
    return cache(lambda case: write_checkpoint(tmp_path_factory.mktemp(case.option), case))


def first_gradients(run, rows):
    """Losses and gradients of the first global batch, in one kind of rows."""
    losses = run.accumulated(*ROWS[rows])
    found = {name: g.clone() for name, g in run.gradients().items() if g is not None}
    run.engine.bare.zero_grad()
    return losses, found


@pytest.mark.parametrize(
    ("case", "adapter"), CELLS, ids=[f"{case.option}-{case.model_type}-{adapter}" for case, adapter in CELLS]
)
def test_from_files_and_back(case, adapter, checkpoint, tmp_path):
    run = FamilyRun(case, adapter, checkpoint(case), tmp_path)
    family, causal_lm = case.family, causal_lm_of(run.model)
    if case.model_type == family.model_types[0]:
        assert type(causal_lm).__name__ == family.native_class
    assert causal_lm.config._attn_implementation == family.isolated[0]
    assert bool(quantized_layers(run.model)) == (adapter == "qlora")
    assert any(path.endswith("experts") for path in run.adapted) == (adapter == "experts")

    (padded, expected), (packed, found) = (first_gradients(run, rows) for rows in ROWS)
    assert packed == pytest.approx(padded, rel=1e-5)
    assert largest_difference(found, expected) <= 1e-4

    before = nll(run.model)
    assert two_steps(run).problems() == []
    after = nll(run.model)
    assert not torch.allclose(after, before, rtol=1e-3)

    run.exported()
    reloaded = run.reloaded(checkpoint(case))
    torch.testing.assert_close(nll(reloaded), after, rtol=1e-5, atol=1e-5)
    if adapter == "full":
        replace(run.source, path=str(run.layout.model)).check()  # which can be trained on
    weights = dict(run.model.named_parameters())
    for name, parameter in reloaded.named_parameters():  # those that no text goes through, too
        assert torch.equal(parameter, weights[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_what_text_does_not_go_through(family):
    towers = {"gemma3": ["model.vision_tower", "model.multi_modal_projector"]}
    assert beside_text(tiny(family)) == towers.get(family, [])


@torch.no_grad()
def losses_of(model):
    return ModelWithNll(model)(*random_text().args()).nll


@pytest.mark.parametrize(("family", "setting", "without"), SETTINGS)
def test_a_setting_shows_in_the_loss(family, setting, without):
    """Otherwise the tests above would not see it go wrong."""
    model, other = tiny(family), tiny(family, **{setting: without})
    other.load_state_dict(model.state_dict())
    assert (losses_of(model) - losses_of(other)).abs().max() > 1e-2


@pytest.mark.parametrize(("family", "ending"), WEIGHTS)
def test_a_weight_shows_in_the_loss(family, ending):
    model = tiny(family)
    before, found = losses_of(model), 0
    for name, parameter in model.named_parameters():
        if name.endswith(ending):
            parameter.detach().zero_()
            found += 1
    assert found
    assert (losses_of(model) - before).abs().max() > 1e-2
