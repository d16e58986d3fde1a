"""The model-with-nll equals the model's own logits path, without its logits."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
import torch.nn.functional as F
from model_families import FAMILIES, VOCAB, gradients, largest_difference, random_text, tiny
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from mftrun.errors import ConfigError
from mftrun.models.final_logits import FinalLogits
from mftrun.models.heads import ChunkedHead, FusedHead, LigerHead, chunk_size_for, head_for
from mftrun.models.parts import causal_lm_of
from mftrun.models.recompute import recompute_activations
from mftrun.models.with_nll import ModelWithNll

CHUNKS = 7  # 48 targets: several chunks, the last one shorter
needs_fused = pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="needs torch 2.13")


def own_nll(model, text):
    """What the model's own logits give, in full."""
    logits = model(input_ids=text.input_ids, position_ids=text.position_ids, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1)[text.predict_from].float(), text.target_ids, reduction="none")


def assert_equals_own(model, head, tolerance=1e-5):
    """Values, and gradients of an uneven sum of them."""
    text = random_text().to(causal_lm_of(model).device)
    weight = torch.linspace(0.1, 2, len(text.target_ids), device=text.target_ids.device)
    expected = own_nll(model, text)
    (expected * weight).sum().backward()
    expected_gradients = gradients(model)
    found = ModelWithNll(model, head)(*text.args()).nll
    (found * weight).sum().backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert largest_difference(gradients(model), expected_gradients) <= tolerance


def small_chunks(model):
    """The head that would be chosen, in chunks small enough for several of them."""
    chosen = head_for(model).head
    return FusedHead(CHUNKS) if isinstance(chosen, FusedHead) else ChunkedHead(CHUNKS, chosen.final)


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_own_logits(family):
    model = tiny(family)
    assert_equals_own(model, small_chunks(model))


@pytest.mark.parametrize("family", ["llama", "llama_tied"])
def test_chunked_where_fused_would_do(family):
    assert_equals_own(tiny(family), ChunkedHead(CHUNKS))


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("llama", ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]),
        ("gemma2", ["q_proj", "v_proj", "lm_head"]),
        ("gpt_neox", ["query_key_value", "dense", "embed_out", "lm_head"]),
    ],
)
def test_lora_on_every_layer_and_the_head(family, layers):
    model = get_peft_model(tiny(family), LoraConfig(r=4, target_modules=layers, init_lora_weights=False))
    assert type(head_for(model).head) is ChunkedHead
    assert_equals_own(model, small_chunks(model))


def test_lora_with_a_frozen_head():
    model = get_peft_model(
        tiny("llama"), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    assert_equals_own(model, small_chunks(model))


def test_head_dropout_is_the_same_when_computed_again():
    """A chunk that drew other numbers in the backward pass would have gradients of another function."""
    settings = LoraConfig(r=4, target_modules=["lm_head"], lora_dropout=0.5, init_lora_weights=False)
    model = get_peft_model(tiny("llama"), settings)
    text = random_text()
    wrapped = ModelWithNll(model, ChunkedHead(CHUNKS))
    parameter = next(p for name, p in model.named_parameters() if "lm_head.lora_B" in name)
    seeded_loss(wrapped, text).backward()
    gradient = parameter.grad.clone()
    with torch.no_grad():
        losses = [seeded_loss(wrapped, text, parameter, step * gradient) for step in (1e-3, -1e-3)]
    slope = (losses[0] - losses[1]) / 2e-3
    assert torch.isclose(slope, gradient.square().sum().double(), rtol=1e-2)


def seeded_loss(wrapped, text, parameter=None, change=0.0):
    """The loss under one fixed draw of dropout, with a parameter changed for the time being."""
    torch.manual_seed(2)
    if parameter is None:
        return wrapped(*text.args()).nll.sum()
    parameter.add_(change)
    loss = wrapped(*text.args()).nll.double().sum()
    parameter.sub_(change)
    return loss


class Largest(TorchDispatchMode):
    """Notes the largest tensor with a vocabulary dimension that any operation made."""

    def __init__(self):
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for item in torch.utils._pytree.tree_leaves(result):
            if isinstance(item, torch.Tensor) and item.ndim and item.shape[-1] == VOCAB:
                self.rows = max(self.rows, item.numel() // VOCAB)
        return result


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi"])
def test_full_logits_never_exist(family):
    model = tiny(family)
    text = random_text()
    with Largest() as largest:
        ModelWithNll(model, small_chunks(model))(*text.args()).nll.sum().backward()
    hidden_size = 32  # the transposed weight has as many rows of vocabulary size
    assert largest.rows <= hidden_size < len(text.target_ids)
    with Largest() as largest:
        own_nll(model, text).sum().backward()
    assert largest.rows >= len(text.target_ids)


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi"])
def test_logits_are_not_kept_for_the_backward_pass(family):
    model = tiny(family)
    text = random_text()
    kept = []

    def note(tensor):
        if tensor.ndim == 2 and tensor.shape[1] == VOCAB:
            kept.append(tensor.shape[0])
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        nll = ModelWithNll(model, small_chunks(model))(*text.args()).nll
    assert nll.requires_grad
    transposed_weight = 32
    assert set(kept) <= {transposed_weight}


def test_only_target_positions_are_projected(monkeypatch):
    model = tiny("phi")
    text = random_text()
    seen, linear = [], torch.nn.functional.linear

    def watched(states, weight, bias=None):
        if weight is model.lm_head.weight:
            seen.append(states.shape[0])
        return linear(states, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    few = slice(5, 9)
    ModelWithNll(model)(text.input_ids, text.position_ids, text.predict_from[few], text.target_ids[few])
    assert seen == [4]


@pytest.mark.parametrize("family", ["llama", "llama_tied", "phi", "mixtral"])
def test_without_targets_every_parameter_gets_a_zero_gradient(family):
    model = tiny(family)
    empty = torch.zeros(0, dtype=torch.int64)
    one = torch.zeros(1, 1, dtype=torch.int64)
    output = ModelWithNll(model)(one, one, empty, empty)
    assert output.nll.shape == (0,)
    output.nll.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(float(gradient.abs().sum()) == 0 for gradient in gradients(model).values())


def test_without_targets_under_lora():
    model = get_peft_model(tiny("llama"), LoraConfig(r=4, target_modules="all-linear"))
    empty = torch.zeros(0, dtype=torch.int64)
    one = torch.zeros(1, 1, dtype=torch.int64)
    ModelWithNll(model)(one, one, empty, empty).nll.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_autocast_gives_losses_in_single_precision(family):
    model = tiny(family)
    text = random_text()
    exact = own_nll(model, text)
    head = head_for(model, compute_dtype=torch.bfloat16).head
    assert isinstance(head, ChunkedHead)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = own_nll(model, text)
        found = ModelWithNll(model, ChunkedHead(CHUNKS, head.final))(*text.args()).nll
        fused = ModelWithNll(model)(*text.args()).nll
    assert found.dtype == fused.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.05)
    assert (found - exact).norm() <= 1.2 * (rounded - exact).norm()
    assert (fused - exact).norm() <= 1.2 * (rounded - exact).norm()
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_bfloat16_weights():
    model = tiny("llama").bfloat16()
    found = ModelWithNll(model, head_for(model, compute_dtype=torch.bfloat16).head)(*random_text().args()).nll
    found.sum().backward()
    assert found.dtype == torch.float32
    assert model.lm_head.weight.grad.dtype == torch.bfloat16


def router_loss(output, text):
    """That of a micro-batch which is the whole global batch; 0 without experts."""
    return output.router.share(output.router.choices, text.input_ids.numel()) if output.router else 0


def test_router_loss_is_the_models_own():
    model = tiny("mixtral")
    text = random_text()
    own = model(
        input_ids=text.input_ids, position_ids=text.position_ids, output_router_logits=True, use_cache=False
    )
    found = router_loss(ModelWithNll(model)(*text.args()), text)
    torch.testing.assert_close(found.float(), 0.02 * own.aux_loss)
    found.backward()
    assert any("gate" in name for name in gradients(model))


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_no_router_loss_without_experts_or_coefficient(family):
    changes = {"router_aux_loss_coef": 0.0} if family == "mixtral" else {}
    assert ModelWithNll(tiny(family, **changes))(*random_text().args()).router is None


def test_output_survives_accelerate():
    """Mixed precision converts outputs item by item: the tuple must keep its names, and its None."""
    from accelerate.utils import convert_outputs_to_fp32

    output = convert_outputs_to_fp32(ModelWithNll(tiny("llama")).forward)(*random_text().args())
    assert output.nll.shape == (48,)
    assert output.router is None


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_recomputing_activations_changes_nothing(family):
    text = random_text()
    found, calls = [], []
    for again in (False, True):
        model = tiny(family)
        if again:
            recompute_activations(model)
        model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, again=again: calls.append(again))
        output = ModelWithNll(model)(*text.args())
        (output.nll.sum() + router_loss(output, text)).backward()
        found.append(gradients(model))
    assert calls == [False, True, True]
    assert largest_difference(found[1], found[0]) <= 1e-5


def test_recomputing_activations_under_lora():
    model = get_peft_model(tiny("llama"), LoraConfig(r=4, target_modules="all-linear"))
    recompute_activations(model)
    ModelWithNll(model)(*random_text().args()).nll.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@needs_fused
def test_choice_of_head():
    assert head_for(tiny("llama")).head == FusedHead(chunk_size_for(VOCAB))
    assert head_for(tiny("llama"), "chunked").head == ChunkedHead(chunk_size_for(VOCAB))
    assert head_for(tiny("gemma2")).head == ChunkedHead(chunk_size_for(VOCAB), FinalLogits(cap=2.0))
    assert head_for(tiny("cohere")).head == ChunkedHead(chunk_size_for(VOCAB), FinalLogits(scale=0.4))
    assert "bias" in head_for(tiny("phi")).reason
    assert "bfloat16" in head_for(tiny("llama"), compute_dtype=torch.bfloat16).reason


@pytest.mark.parametrize("family", ["gemma2", "granite", "phi"])
def test_fused_is_refused_where_it_would_be_wrong(family):
    with pytest.raises(ConfigError, match="fused") as caught:
        head_for(tiny(family), "fused")
    assert caught.value.key == "model.head"


def can_run_liger():
    runs = torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"
    return runs and importlib.util.find_spec("liger_kernel") is not None


@pytest.mark.skipif(not can_run_liger(), reason="needs Liger, and a GPU or TRITON_INTERPRET=1")
@pytest.mark.parametrize("family", ["llama", "llama_tied", "cohere", "phi"])
def test_liger_equals_own_logits(family):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = tiny(family).to(device)
    assert_equals_own(model, head_for(model, "liger").head, tolerance=1e-4)


def test_liger_is_refused_where_it_is_not_verified(monkeypatch):
    monkeypatch.setattr("mftrun.models.heads._check_liger", lambda: None)
    with pytest.raises(ConfigError, match="cap their logits") as caught:
        head_for(tiny("gemma2"), "liger")
    assert caught.value.key == "model.head"
    assert head_for(tiny("cohere"), "liger").head == LigerHead(scale=0.4)


def test_unknown_head():
    with pytest.raises(ConfigError, match="auto, fused, chunked, liger"):
        head_for(tiny("llama"), "flash")


def test_chunks_follow_the_vocabulary():
    assert chunk_size_for(32_000) == 2097
    assert chunk_size_for(10**9) == 1


def test_peft_wrapper_is_seen_through():
    model = tiny("llama")
    assert causal_lm_of(get_peft_model(model, LoraConfig(target_modules=["q_proj"]))) is model
    assert causal_lm_of(model) is model
