"""Tiny random models of many families, with weights so large that every part shows in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 96
_SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
_GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **_NO_DROPOUT}
_ENDS = {name: _SMALL[name] for name in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")}
_WINDOW = {"sliding_window": 5}  # shorter than the texts of any test
_CAPPED = {**_WINDOW, "head_dim": 8, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}
_COHERE = {**_SMALL, "logit_scale": 0.4}
_MIXTURE = {"num_experts_per_tok": 2, "router_aux_loss_coef": 0.02}
_SMALL_EXPERTS = {**_MIXTURE, "num_experts": 4, "moe_intermediate_size": 16}
_LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

# Each has every feature of its family that could change a loss: caps, scales, biases, tied heads, experts, …
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _SMALL,
    "llama_tied": {**_SMALL, "model_type": "llama", "tie_word_embeddings": True},
    "mistral": {**_SMALL, **_WINDOW},
    "mixtral": {**_SMALL, **_MIXTURE, **_WINDOW, "num_local_experts": 4},
    "qwen2": {**_SMALL, "tie_word_embeddings": True},
    "qwen2_moe": {**_SMALL, **_SMALL_EXPERTS, "shared_expert_intermediate_size": 24},
    "qwen3": {**_SMALL, "head_dim": 8},
    "qwen3_moe": {**_SMALL, **_SMALL_EXPERTS, "head_dim": 8},
    "gemma": {**_SMALL, "head_dim": 8, "num_key_value_heads": 1},
    "gemma2": {**_SMALL, **_CAPPED, "attn_logit_softcapping": 2.0},
    "gemma3_text": {**_SMALL, **_CAPPED},
    "gemma3": {
        "text_config": {**_SMALL, **_CAPPED, "final_logit_softcapping": None},  # it would ignore one
        "vision_config": _VISION,
        "mm_tokens_per_image": 4,
    },
    "cohere": _COHERE,
    "granite": {
        **_SMALL,
        "logits_scaling": 3.0,
        "residual_multiplier": 0.7,
        "embedding_multiplier": 2.0,
        "attention_multiplier": 0.5,
    },
    "glm": {**_SMALL, "head_dim": 8, "attention_bias": True},
    "glm4": {**_SMALL, "head_dim": 8, "attention_bias": True},
    "olmo2": _SMALL,
    "gpt_neox": {**_SMALL, "hidden_dropout": 0.0, "attention_dropout": 0.0},
    "gpt_bigcode": {**_ENDS, **_GPT, "multi_query": True},
    "starcoder2": {**_SMALL, **_WINDOW, "use_bias": True, "tie_word_embeddings": True},
    "gptj": {**_ENDS, **_GPT, "rotary_dim": 4},
    "phi": _SMALL,
    "phi3": {**_SMALL, **_WINDOW},
    "deepseek_v2": {**_SMALL, **_LATENT, "q_lora_rank": None},
    "deepseek_v3": {**_SMALL, **_LATENT, "q_lora_rank": 8, "n_group": 2, "topk_group": 1},
}


@dataclass(frozen=True)
class Text:
    """Inputs of one micro-batch in which every token but the first of a row is a target."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predict_from: torch.Tensor
    target_ids: torch.Tensor

    def args(self) -> tuple[torch.Tensor, ...]:
        return self.input_ids, self.position_ids, self.predict_from, self.target_ids

    def to(self, device: torch.device) -> Text:
        return Text(*(tensor.to(device) for tensor in self.args()))


def tiny(family: str, attention: str = "eager", **changes: Any) -> Any:
    """A model of the family in training mode, the same at every call."""
    settings = {"model_type": family, **FAMILIES[family]}
    if "text_config" in settings:
        settings["text_config"] = {**settings["text_config"], **changes}
    else:
        settings.update(changes)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    _without_dropout(model)
    return model.train()


def _without_dropout(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "attn_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def random_text(rows: int = 3, length: int = 17, seed: int = 0) -> Text:
    ids = torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))
    flat = torch.arange(rows * length).view(rows, length)
    positions = torch.arange(length).expand(rows, length).contiguous()
    return Text(ids, positions, flat[:, :-1].flatten(), ids[:, 1:].flatten())


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gradients by name, taken away from the model."""
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def largest_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Largest difference of any parameter's gradient, relative to that parameter's largest."""
    assert found.keys() == expected.keys()
    pairs = [(found[name], expected[name]) for name in expected]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-6)) for a, b in pairs)
