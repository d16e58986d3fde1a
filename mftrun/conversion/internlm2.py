"""InternLM2 (arXiv 2403.17297) as Llama.

`wqkv` holds, for each key-value head, its query heads, then the key, then the value. `w1` is the gate,
`w3` goes up, `w2` down. Llama's dynamic rope scaling, beyond `max_position_embeddings`, is that of InternLM2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mftrun.conversion.legacy import Legacy, as_llama
from mftrun.conversion.rules import Rule, grouped_rows, renamed
from mftrun.conversion.sentencepiece_tokenizer import internlm2_tokenizer


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    return as_llama(config, _groups(config), ("linear", "dynamic"), bias=bool(config.get("bias", False)))


def _groups(config: Mapping[str, Any]) -> int:
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def _rules(config: Mapping[str, Any]) -> list[Rule]:
    heads, groups = config["num_attention_heads"], _groups(config)
    split = grouped_rows(groups, heads // groups, config["hidden_size"] // heads)
    attention, feed_forward = "model.layers.{}.attention", "model.layers.{}.feed_forward"
    native = "model.layers.{}.self_attn"
    kinds = ("weight", "bias") if config.get("bias") else ("weight",)
    rules = [
        Rule(f"{attention}.wqkv.{kind}", tuple(f"{native}.{part}_proj.{kind}" for part in "qkv"), split)
        for kind in kinds
    ]
    rules += renamed((f"{attention}.wo.{kind}", f"{native}.o_proj.{kind}") for kind in kinds)
    return rules + renamed(
        [
            ("model.tok_embeddings.weight", "model.embed_tokens.weight"),
            ("model.layers.{}.attention_norm.weight", "model.layers.{}.input_layernorm.weight"),
            ("model.layers.{}.ffn_norm.weight", "model.layers.{}.post_attention_layernorm.weight"),
            (f"{feed_forward}.w1.weight", "model.layers.{}.mlp.gate_proj.weight"),
            (f"{feed_forward}.w3.weight", "model.layers.{}.mlp.up_proj.weight"),
            (f"{feed_forward}.w2.weight", "model.layers.{}.mlp.down_proj.weight"),
            ("model.norm.weight", "model.norm.weight"),
            ("output.weight", "lm_head.weight"),
        ]
    )


INTERNLM2 = Legacy("internlm2", _config, _rules, internlm2_tokenizer)
