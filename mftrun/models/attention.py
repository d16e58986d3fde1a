"""Which implementation of attention a model runs with."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from mftrun.errors import ConfigError
from mftrun.models.families import ATTENTION, FAMILIES, lacks, leaks

if TYPE_CHECKING:
    import torch

    from mftrun.models.base import ModelSource

log = logging.getLogger(__name__)

Attention = Literal["auto", "flash_attention_3", "flash_attention_2", "sdpa", "eager", "flex"]
"""Values of `model.attention`."""

_BY_SPEED = ("flash_attention_3", "flash_attention_2", "sdpa", "eager")


@dataclass(frozen=True)
class _Flash:
    """What a flash attention needs of the machine.

    Attributes:
        module: What is imported.
        install: How it gets there.
        capability: Compute capabilities of the GPUs it runs on: the first, and the first beyond.
    """

    module: str
    install: str
    capability: tuple[int, int]


_FLASH: Mapping[str, _Flash] = MappingProxyType(
    {
        "flash_attention_3": _Flash(
            "flash_attn_interface",
            "git clone https://github.com/Dao-AILab/flash-attention && pip install ./flash-attention/hopper",
            (9, 10),
        ),
        "flash_attention_2": _Flash("flash_attn", 'pip install "mftrun[flash-attn]"', (8, 99)),
    }
)
_MAY_LEAK = frozenset(name for family in FAMILIES.values() for name in family.leaks)
_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "flash_attention_3": "_supports_flash_attn",
        "flash_attention_2": "_supports_flash_attn",
        "flex": "_supports_flex_attn",
        "sdpa": "_supports_sdpa",
    }
)


def implementation(attention: str) -> str:
    """How transformers names an attention."""
    return "flex_attention" if attention == "flex" else attention


def native_class(model_type: str) -> Any | None:
    """The class of transformers for the causal language models of an architecture; None if there is none."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    return None if name is None else getattr(transformers, name)


def supports(model_class: Any, attention: str) -> bool:
    """Whether a class of transformers has an implementation; all have eager attention."""
    return attention not in _FLAGS or bool(getattr(model_class, _FLAGS[attention], False))


def check_named(attention: str, model_type: str) -> None:
    """Refuses early, from the list of families and the installed packages, what `choose` would refuse later.

    Args:
        attention: Value of `model.attention`.
        model_type: The architecture.

    Raises:
        ConfigError: The family lacks it, or its package is missing.
    """
    if others := lacks(model_type, attention):
        raise _unsupported(attention, model_type, others)
    flash = _FLASH.get(attention)
    if flash is not None and importlib.util.find_spec(flash.module) is None:
        raise ConfigError(
            "model.attention", f"{attention} is not installed: {flash.install}; or use model.attention=auto"
        )


def check_isolation(source: ModelSource, *, shares_rows: bool) -> None:
    """Refuses packed rows, before any data is prepared, where samples are known to see each other.

    What is not known is found out when the model is loaded; see `mftrun.models.verify.verify_packing`.

    Args:
        source: The model option.
        shares_rows: Whether samples share rows.

    Raises:
        ConfigError: They would see each other.
    """
    if not shares_rows or source.attention not in _MAY_LEAK:
        return
    model_type = getattr(source, "model_type", None)
    if model_type is not None and leaks(model_type, source.attention):
        raise ConfigError(
            "rows",
            f"packed samples of {model_type} see each other under {source.attention}; use rows=padding, or "
            "model.attention=auto",
        )


@dataclass(frozen=True)
class Choice:
    """An implementation of attention, and why this one.

    Attributes:
        name: As `model.attention` names it.
        reason: For the log.
    """

    name: str
    reason: str


def choose(attention: str, model_type: str, dtype: torch.dtype | None) -> Choice:
    """The implementation to load a model with.

    Args:
        attention: Value of `model.attention`; ``auto`` takes the fastest that is installed, that the family
            has and that is known to keep packed samples apart.
        model_type: The architecture; transformers has a class for it.
        dtype: What the model computes in; None leaves open whether a named one can compute in it.

    Raises:
        ConfigError: One was named that is missing or does not work here.
    """
    found = native_class(model_type)
    if attention != "auto":
        _check(attention, model_type, found, dtype)
        return Choice(attention, "as asked for")
    passed = ["auto"]
    for name in _BY_SPEED[:-1]:
        if (reason := _against(name, model_type, found, dtype)) is None:
            return Choice(name, "; ".join(passed))
        passed.append(f"not {name}: {reason}")
    return Choice("eager", "; ".join(passed))


def _check(attention: str, model_type: str, found: Any, dtype: torch.dtype | None) -> None:
    if not supports(found, attention):
        raise _unsupported(attention, model_type, tuple(name for name in ATTENTION if supports(found, name)))
    if (reason := _missing(attention, dtype)) is not None:
        raise ConfigError("model.attention", f"{attention} cannot be used: {reason}; use auto")


def _against(attention: str, model_type: str, found: Any, dtype: torch.dtype | None) -> str | None:
    """Why ``auto`` does not take an implementation; None where it may."""
    if not supports(found, attention):
        return f"{model_type} does not have it"
    if (reason := _missing(attention, dtype)) is not None:
        return reason
    if attention not in _FLASH:
        return None
    leak = leaks(model_type, attention)
    if leak is None:
        return f"it is not known to keep packed samples of {model_type} apart"
    return f"packed samples of {model_type} would see each other" if leak else None


def _missing(attention: str, dtype: torch.dtype | None) -> str | None:
    """What this machine or this run lacks for an implementation; None if nothing."""
    import torch

    gpu = torch.cuda.is_available()
    if attention == "flex" and not gpu:
        return "it cannot be trained on a CPU"
    if (flash := _FLASH.get(attention)) is None:
        return None
    if not gpu:
        return "there is no GPU"
    first, beyond = flash.capability
    if not first <= torch.cuda.get_device_capability()[0] < beyond:
        return "it was not made for this GPU"
    if not _installed(attention):
        return f"it is not installed ({flash.install})"
    if dtype not in (None, torch.bfloat16, torch.float16):
        return "it computes in 16 bit alone (train.precision=bf16)"
    return None


def _installed(attention: str) -> bool:
    from transformers import utils

    probe = getattr(utils, f"is_flash_attn_{attention[-1]}_available", None)
    return probe is not None and bool(probe())


def _unsupported(attention: str, model_type: str, others: tuple[str, ...]) -> ConfigError:
    named = " or ".join((", ".join(others[:-1]), others[-1]))
    return ConfigError(
        "model.attention", f"models of type {model_type!r} do not have {attention}; use {named}, or auto"
    )
