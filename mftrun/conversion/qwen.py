"""Qwen, first generation (arXiv 2309.16609), as Qwen2.

Its attention has one projection `c_attn` (queries, keys, values; with bias). Its feed-forward part is
`c_proj(w1(x) * silu(w2(x)))`: `w1` goes up and `w2` is the gate, each half of what config.json calls
`intermediate_size`. Angles are those of GPT-NeoX. Dynamic NTK scaling and the logarithmic factor on queries
act in generation alone, and beyond `seq_length` alone: up to there, and in training, Qwen2 computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mftrun.conversion.legacy import ROTARY_BUFFERS, Legacy, insist, kept, required, rope, tied
from mftrun.conversion.rules import Rule, renamed, rows
from mftrun.conversion.tiktoken import qwen_tokenizer

_ONLY = {
    "no_bias": True,
    "scale_attn_weights": True,
    "rotary_pct": 1.0,
    "apply_residual_connection_post_layernorm": False,
    "emb_dropout_prob": 0.0,
}


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    insist(config, _ONLY, "it becomes a Qwen2 model")
    heads, hidden = required(config, "num_attention_heads"), required(config, "hidden_size")
    native = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": required(config, "intermediate_size") // 2,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "num_hidden_layers": required(config, "num_hidden_layers"),
        "vocab_size": required(config, "vocab_size"),
        "max_position_embeddings": required(config, "seq_length"),
        "rms_norm_eps": required(config, "layer_norm_epsilon"),
        "attention_dropout": config.get("attn_dropout_prob", 0.0),
        "use_sliding_window": False,
        "tie_word_embeddings": tied(config),
        **rope(config, config.get("rotary_emb_base", 10000)),
        **kept(config, "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id"),
    }
    if _head_dim(config) * heads != hidden:
        native["head_dim"] = _head_dim(config)
    return native


def _head_dim(config: Mapping[str, Any]) -> int:
    default = config["hidden_size"] // config["num_attention_heads"]
    return int(config.get("kv_channels") or default)


def _rules(config: Mapping[str, Any]) -> list[Rule]:
    width = _head_dim(config) * config["num_attention_heads"]
    heads = rows(width, width, width)
    attention = "model.layers.{}.self_attn"
    split = [
        Rule(
            f"transformer.h.{{}}.attn.c_attn.{kind}",
            tuple(f"{attention}.{part}_proj.{kind}" for part in "qkv"),
            heads,
        )
        for kind in ("weight", "bias")
    ]
    return split + renamed(
        [
            ("transformer.wte.weight", "model.embed_tokens.weight"),
            ("transformer.h.{}.ln_1.weight", "model.layers.{}.input_layernorm.weight"),
            ("transformer.h.{}.attn.c_proj.weight", f"{attention}.o_proj.weight"),
            ("transformer.h.{}.ln_2.weight", "model.layers.{}.post_attention_layernorm.weight"),
            ("transformer.h.{}.mlp.w1.weight", "model.layers.{}.mlp.up_proj.weight"),
            ("transformer.h.{}.mlp.w2.weight", "model.layers.{}.mlp.gate_proj.weight"),
            ("transformer.h.{}.mlp.c_proj.weight", "model.layers.{}.mlp.down_proj.weight"),
            ("transformer.ln_f.weight", "model.norm.weight"),
            ("lm_head.weight", "lm_head.weight"),
        ]
    )


def _notes(config: Mapping[str, Any]) -> Sequence[str]:
    found = [key for key in ("use_dynamic_ntk", "use_logn_attn") if config.get(key)]
    if not found:
        return ()
    return (
        f"{' and '.join(found)}: the original stretches texts beyond {config['seq_length']:,} tokens while "
        "it generates; Qwen2 does not, so max_position_embeddings is that length",
    )


QWEN = Legacy("qwen", _config, _rules, qwen_tokenizer, rf"{ROTARY_BUFFERS}|.*\.attn\.(masked_)?bias", _notes)
