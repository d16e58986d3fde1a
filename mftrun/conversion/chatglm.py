"""ChatGLM2, ChatGLM3 and CodeGeeX2 (arXiv 2210.02414, 2406.12793) as Glm.

One projection holds all query heads, then the keys and the values of a few groups. The first half of a head
is rotated, in neighbouring pairs. The gate and the way up are one matrix, in this order, as in Glm. Releases
for long texts have a `rope_ratio`: ChatGLM2 divides positions by it, ChatGLM3 multiplies the angles' base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mftrun.conversion.legacy import Legacy, insist, kept, required, tied
from mftrun.conversion.rules import Rule, renamed, rows
from mftrun.conversion.sentencepiece_tokenizer import chatglm_tokenizer
from mftrun.errors import ConfigError

_ONLY = {
    "rmsnorm": True,
    "post_layer_norm": True,
    "add_bias_linear": False,
    "multi_query_attention": True,
    "original_rope": True,
    "apply_residual_connection_post_layernorm": False,
    "fp32_residual_connection": False,
    "hidden_dropout": 0.0,
    "pre_seq_len": None,
    "quantization_bit": 0,
    "rope_scaling": None,
}


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    if "position_encoding_2d" in config or "inner_hidden_size" in config:
        raise ConfigError("source", "is a ChatGLM of the first generation, which no native class equals")
    insist(config, _ONLY, "it becomes a Glm model")
    heads = required(config, "num_attention_heads")
    return {
        "architectures": ["GlmForCausalLM"],
        "model_type": "glm",
        "hidden_act": "silu",
        "hidden_size": required(config, "hidden_size"),
        "intermediate_size": required(config, "ffn_hidden_size"),
        "num_attention_heads": heads,
        "num_key_value_heads": required(config, "multi_query_group_num"),
        "head_dim": required(config, "kv_channels"),
        "num_hidden_layers": required(config, "num_layers"),
        "vocab_size": required(config, "padded_vocab_size"),
        "max_position_embeddings": required(config, "seq_length"),
        "rms_norm_eps": required(config, "layernorm_epsilon"),
        "attention_bias": bool(config.get("add_qkv_bias", False)),
        "attention_dropout": config.get("attention_dropout", 0.0),
        "tie_word_embeddings": tied(config),
        "rope_parameters": {"partial_rotary_factor": 0.5, **_angles(config)},
        "eos_token_id": config.get("eos_token_id", 2),
        "pad_token_id": config.get("pad_token_id", 0),
        **kept(config, "bos_token_id"),
    }


def _angles(config: Mapping[str, Any]) -> dict[str, Any]:
    ratio = float(config.get("rope_ratio") or 1)
    if ratio == 1:
        return {"rope_type": "default", "rope_theta": 10000.0}
    name = str(config.get("_name_or_path", "")).lower()
    if "chatglm2" in name:
        return {"rope_type": "linear", "factor": ratio, "rope_theta": 10000.0}
    if "chatglm3" in name:
        return {"rope_type": "default", "rope_theta": 10000.0 * ratio}
    raise ConfigError(
        "source",
        f"has a rope_ratio of {ratio:g}: ChatGLM2 divides positions by it, ChatGLM3 multiplies the base. "
        'Its config.json does not tell which it is; set its "_name_or_path" to chatglm2-6b-32k or '
        "chatglm3-6b-32k",
    )


def _rules(config: Mapping[str, Any]) -> list[Rule]:
    head = config["kv_channels"]
    keys = config["multi_query_group_num"] * head
    heads = rows(config["num_attention_heads"] * head, keys, keys)
    layer, attention = "transformer.encoder.layers.{}", "model.layers.{}.self_attn"
    kinds = ("weight", "bias") if config.get("add_qkv_bias") else ("weight",)
    split = [
        Rule(
            f"{layer}.self_attention.query_key_value.{kind}",
            tuple(f"{attention}.{part}_proj.{kind}" for part in "qkv"),
            heads,
        )
        for kind in kinds
    ]
    return split + renamed(
        [
            ("transformer.embedding.word_embeddings.weight", "model.embed_tokens.weight"),
            (f"{layer}.input_layernorm.weight", "model.layers.{}.input_layernorm.weight"),
            (f"{layer}.self_attention.dense.weight", f"{attention}.o_proj.weight"),
            (f"{layer}.post_attention_layernorm.weight", "model.layers.{}.post_attention_layernorm.weight"),
            (f"{layer}.mlp.dense_h_to_4h.weight", "model.layers.{}.mlp.gate_up_proj.weight"),
            (f"{layer}.mlp.dense_4h_to_h.weight", "model.layers.{}.mlp.down_proj.weight"),
            ("transformer.encoder.final_layernorm.weight", "model.norm.weight"),
            ("transformer.output_layer.weight", "lm_head.weight"),
        ]
    )


CHATGLM = Legacy("chatglm2, chatglm3 or codegeex2", _config, _rules, chatglm_tokenizer)
