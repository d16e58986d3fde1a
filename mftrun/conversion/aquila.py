"""Aquila2 (arXiv 2408.07410) as Llama: the same arithmetic under the same names.

The original also limits attention scores to ±1024, which changes nothing: softmax has
long been one-hot by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mftrun.conversion.byte_level import aquila_tokenizer
from mftrun.conversion.legacy import Legacy, as_llama, required
from mftrun.conversion.rules import Rule, renamed

_LAYER = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "input_layernorm",
    "post_attention_layernorm",
)


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = required(config, "num_attention_heads")
    return as_llama(config, config.get("num_key_value_heads") or heads, ("linear", "dynamic"))


def _rules(config: Mapping[str, Any]) -> list[Rule]:
    names = [f"model.layers.{{}}.{name}.weight" for name in _LAYER]
    names += ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    return renamed((name, name) for name in names)


AQUILA = Legacy("aquila2", _config, _rules, aquila_tokenizer)
