"""The model that is tuned, and how it attends."""

from __future__ import annotations

from types import MappingProxyType

from mftrun.mftcoder.translation import Translation
from mftrun.mftcoder.values import MISSING, Given, Values

_OPTIONS = MappingProxyType(
    {
        "aquila": "aquila2",
        "aquila2": "aquila2",
        "baichuan": "baichuan2",
        "chatglm2": "chatglm2",
        "chatglm3": "chatglm3",
        "code_llama": "code_llama",
        "deepseek": "deepseek",
        "deepseek_v2": "deepseek_v2",
        "gemma": "gemma",
        "gpt_neox": "gpt_neox",
        "llama": "llama",
        "mistral": "mistral",
        "mixtral": "mixtral",
        "phi": "phi",
        "qwen": "qwen",
        "qwen2": "qwen2",
        "qwen2_moe": "qwen2_moe",
        "starcoder": "starcoder",
        "starcoder2": "starcoder2",
    }
)
"""MFTCoder's `model_type` → our option of `model`."""

LEGACY = frozenset({"aquila", "aquila2", "baichuan", "chatglm2", "chatglm3", "qwen"})
"""Those that MFTCoder trained with modelling code of its own."""

EXPERTS = frozenset({"deepseek_v2", "mixtral", "qwen2_moe"})
"""Those with experts."""


def translate_model(values: Values, out: Translation) -> None:
    """`model` and its keys.

    Raises:
        ConfigError: A value has the wrong type.
    """
    kind = values.text("model_type")
    option = _OPTIONS.get(kind.value, "auto") if kind is not None else "auto"
    out.choose("model", option, kind)
    _note_family(kind, option, out)
    _path(values, out)
    _attention(values, out)


def _path(values: Values, out: Translation) -> None:
    path = values.text("pretrained_model_path")
    if path is None:
        out.assume("model.path", MISSING, "the file names no model")
    else:
        out.carry("model.path", path)


def _attention(values: Values, out: Translation) -> None:
    named, flash = values.text("attn_implementation"), values.flag("flash_attention")
    out.carry("model.attention", named)
    if named is not None or flash is None or not flash.value:
        out.drop(flash, "model.attention=auto takes the fastest that is installed")
    else:
        out.put("model.attention", "flash_attention_2", flash)


def _note_family(kind: Given[str] | None, option: str, out: Translation) -> None:
    if kind is None or kind.value == MISSING:
        out.note(
            "model=auto takes any family; values.model_type=NAME picks the one that MFTCoder's name means"
        )
    elif kind.value not in _OPTIONS:
        out.note(
            f"MFTCoder has no model_type {kind.value}; model=auto takes what transformers has a class for"
        )
    elif kind.value in LEGACY:
        out.note(
            f"transformers has no class for {kind.value}: convert the checkpoint first (job=convert), and "
            f"give the converted folder as model.path to model={option}"
        )
    if kind is not None and kind.value == "chatglm2":
        out.note("MFTCoder called CodeGeeX2 chatglm2, too; for that use model=codegeex2")
