"""Baichuan2-7B (arXiv 2309.10305) as Llama.

`W_pack` holds queries, keys and values. The head divides each row of its weight by its length in every
forward (NormHead), so that a plain head with rows of length 1 is the same. The 13B models have ALiBi instead
of rotary angles, with RMS norms and a gated feed-forward part: no class of transformers has these together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mftrun.conversion.legacy import Legacy, as_llama, insist, required, tied
from mftrun.conversion.rules import Rule, renamed, rows, unit_rows, whole
from mftrun.conversion.sentencepiece_tokenizer import baichuan_tokenizer
from mftrun.errors import ConfigError

_FIRST = "BaiChuanForCausalLM"  # Baichuan-7B, spelt so, has a plain head
_UNCHANGED = (
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "input_layernorm",
    "post_attention_layernorm",
)


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("max_position_embeddings") is None:  # those of 13B have model_max_length alone
        raise ConfigError(
            "source",
            "is a Baichuan model with ALiBi (13B): transformers has no class with ALiBi, RMS norms and a "
            "gated feed-forward part, so it cannot be converted exactly. Convert a 7B model, or train this "
            "one with its own code: model=auto model.trust_remote_code=true",
        )
    if tied(config) and _normalises(config):
        raise ConfigError(
            "source", "ties its head to the embedding, and normalises the head: no class does both"
        )
    insist(config, {"rope_scaling": None}, "it becomes a Llama model of Baichuan's angles")
    return as_llama(config, required(config, "num_attention_heads"))


def _normalises(config: Mapping[str, Any]) -> bool:
    return _FIRST not in (config.get("architectures") or ())


def _rules(config: Mapping[str, Any]) -> list[Rule]:
    hidden = config["hidden_size"]
    packed = tuple(f"model.layers.{{}}.self_attn.{part}_proj.weight" for part in "qkv")
    head = unit_rows if _normalises(config) else whole
    unchanged = [f"model.layers.{{}}.{name}.weight" for name in _UNCHANGED]
    unchanged += ["model.embed_tokens.weight", "model.norm.weight"]
    return [
        Rule("model.layers.{}.self_attn.W_pack.weight", packed, rows(hidden, hidden, hidden)),
        Rule("lm_head.weight", ("lm_head.weight",), head),
        *renamed((name, name) for name in unchanged),
    ]


def _notes(config: Mapping[str, Any]) -> Sequence[str]:
    if not _normalises(config):
        return ()
    return ("the head's rows now have length 1; unlike the original, training may change their length",)


BAICHUAN = Legacy("baichuan2", _config, _rules, baichuan_tokenizer, notes=_notes)
