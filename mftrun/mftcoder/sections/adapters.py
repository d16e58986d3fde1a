"""Which weights are trained."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from mftrun.mftcoder.sections.model import EXPERTS
from mftrun.mftcoder.translation import Translation
from mftrun.mftcoder.values import Given, Values

_ATTENTION = ("q_proj", "k_proj", "v_proj")
_CHATGLM = MappingProxyType(
    {
        "query_key_value": _ATTENTION,
        "dense": ("o_proj",),
        "dense_h_to_4h": ("gate_up_proj",),
        "dense_4h_to_h": ("down_proj",),
    }
)
# Layers of modelling code that MFTCoder brought along → those of the native class of a converted model.
_RENAMED = MappingProxyType(
    {
        "qwen": MappingProxyType(
            {
                "c_attn": _ATTENTION,
                "c_proj": ("o_proj", "down_proj"),
                "w1": ("up_proj",),
                "w2": ("gate_proj",),
            }
        ),
        "baichuan": MappingProxyType({"W_pack": _ATTENTION}),
        "chatglm2": _CHATGLM,
        "chatglm3": _CHATGLM,
    }
)
_KINDS = MappingProxyType({"lora": "lora", "qlora": "qlora"})
_BITS = MappingProxyType({"4bit": "qlora", "8bit": "qlora8"})
_WHOLE = ("16bit", "32bit")


def translate_adapters(values: Values, out: Translation) -> None:
    """`peft` and its keys, and whether activations are recomputed.

    Raises:
        ConfigError: A value has the wrong type, or MFTCoder knew no such adapter.
    """
    option = _option(values, out)
    if option == "none":
        for key in ("lora_rank", "lora_alpha", "lora_dropout", "target_modules"):
            out.drop(values.any(key), "all weights are trained: there is no adapter")
    else:
        _low_rank(values, out)
    recomputed = values.flag("checkpoint_activations", "gradient_checkpointing")
    if values.dialect.recomputes:
        out.assume("train.gradient_checkpointing", True, "MFTCoder always recomputed activations")
        out.drop(recomputed, "nothing read it: activations were always recomputed")
    else:
        out.carry("train.gradient_checkpointing", recomputed)


def _option(values: Values, out: Translation) -> str:
    kind, quantization = values.text("peft_type"), values.text("quantization")
    if kind is None:
        out.choose("peft", "none")
        out.drop(quantization, "all weights are trained, in 16 and 32 bit")
        return "none"
    if (option := _KINDS.get(kind.value.lower())) is None:
        raise values.refused(kind, "is no adapter that MFTCoder had: lora, qlora, or null")
    if quantization is None or quantization.value in _WHOLE:
        out.drop(quantization, "the model's own weights are held in 16 bit unless peft says otherwise")
    elif (quantized := _BITS.get(quantization.value)) is None:
        raise values.refused(quantization, "must be 4bit, 8bit, or null")
    elif values.dialect.reads_quantization and not quantization.is_default:
        out.choose("peft", quantized, quantization)
        out.choose("peft", quantized, kind)
        return quantized
    elif quantized != option:
        out.drop(quantization, f"nothing read it: peft_type alone decided, {kind.value}")
    else:
        out.choose("peft", option, quantization)
    out.choose("peft", option, kind)
    return option


def _low_rank(values: Values, out: Translation) -> None:
    out.carry("peft.r", values.whole("lora_rank", least=1))
    out.carry("peft.alpha", values.number("lora_alpha"))
    out.carry("peft.dropout", values.number("lora_dropout"))
    kind = values.text("model_type")
    family = kind.value if kind is not None else ""
    targets = values.any("target_modules")
    if targets is not None and targets.value:
        out.put("peft.target_modules", _native(targets, family, values), targets)
    else:
        chosen: Any = list(values.dialect.targets.get(family, ())) or "all-linear"
        out.assume("peft.target_modules", chosen, "what MFTCoder took for this model_type")
    _note_fused(family, targets, out)
    if family in EXPERTS:
        out.note(
            "MFTCoder's adapters on all linear layers covered the experts, too; here peft.experts=true "
            "peft.dropout=0 adds those, and model.adapter_targets of such a family is attention alone"
        )


def _note_fused(family: str, targets: Given[Any] | None, out: Translation) -> None:
    """One adapter on queries, keys and values together is not three of the same rank."""
    fused = [name for name, native in _RENAMED.get(family, {}).items() if native == _ATTENTION]
    named = targets.value if targets is not None and targets.value else "all-linear"
    if fused and (named == "all-linear" or fused[0] in named):
        out.note(
            f"{fused[0]} had one adapter, whose A queries, keys and values shared; in the native class each "
            "has an adapter of its own, of the same rank: more weights, and other ones at the start"
        )


def _native(targets: Given[Any], family: str, values: Values) -> list[str] | str:
    """Names of layers in the native class of the family."""
    named = targets.value
    if named == "all-linear":
        return "all-linear"
    if isinstance(named, str):
        named = [name.strip() for name in named.strip("[]").split(",")]
    if not isinstance(named, Sequence) or not all(isinstance(name, str) and name for name in named):
        raise values.refused(targets, "must be a list of names of layers")
    renamed = _RENAMED.get(family, MappingProxyType({}))
    native = [new for name in named for new in renamed.get(name, (name,))]
    return list(dict.fromkeys(native))
