"""Putting a peft adapter into a model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mftrun.errors import ConfigError
from mftrun.models.parts import beside_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SIXTEEN_BIT = (torch.bfloat16, torch.float16)


def inject(model: PreTrainedModel, config: Any, adapter_dtype: torch.dtype | None, key: str) -> Any:
    """A `PeftModel` around `model`, of which only the adapter is trainable.

    Args:
        model: As loaded.
        config: A `PeftConfig` for causal language models.
        adapter_dtype: Of the trained weights; None makes 32 bit of 16.
        key: The setting to name when peft refuses.

    Raises:
        ConfigError: Peft refuses.
    """
    from peft import get_peft_model

    dtype = model.dtype
    if others := beside_text(model):  # adapters there would get no gradient
        beside = [rf"{re.escape(path)}(\..*)?" for path in others]
        config.exclude_modules = "|".join([*_patterns(getattr(config, "exclude_modules", None)), *beside])
    try:
        result = get_peft_model(model, config, autocast_adapter_dtype=adapter_dtype is None)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(key, f"this model cannot be adapted so: {error}") from error
    _cast(result, adapter_dtype)
    if adapter_dtype is None and dtype in _SIXTEEN_BIT:
        _fit_whole_layers(result, dtype)
    return result


def _patterns(excluded: str | Iterable[str] | None) -> list[str]:
    """Layers to be left out, as regular expressions of whole paths; by peft's rules a string is one."""
    if isinstance(excluded, str):
        return [f"(?:{excluded})"]
    return [rf"(?:.*\.)?{re.escape(name)}" for name in sorted(excluded or ())]


def _cast(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Peft casts the weights of adapters, but not all that is trained besides."""
    for parameter in model.parameters():
        if parameter.requires_grad and (dtype is not None or parameter.dtype in _SIXTEEN_BIT):
            parameter.data = parameter.data.to(dtype or torch.float32)


def _fit_whole_layers(model: nn.Module, dtype: torch.dtype) -> None:
    """Layers trained in full, in 32 bit, take and give what their 16-bit neighbours do, as adapters do."""
    from peft.tuners.ln_tuning.layer import LNTuningLayer
    from peft.utils import ModulesToSaveWrapper

    for module in model.modules():
        if isinstance(module, LNTuningLayer | ModulesToSaveWrapper):
            module.register_forward_pre_hook(_widen)
            module.register_forward_hook(partial(_narrow, dtype=dtype))


def _widen(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.float() if torch.is_floating_point(one) else one for one in arguments)


def _narrow(module: nn.Module, arguments: tuple[Any, ...], output: Tensor, dtype: torch.dtype) -> Tensor:
    return output.to(dtype)
