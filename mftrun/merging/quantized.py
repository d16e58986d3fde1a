"""What quantised weights are worth: the values that a 4- or 8-bit layer computes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mftrun.errors import ConfigError
from mftrun.merging.adapter import SavedAdapter
from mftrun.models.quantization import EightBit, FourBit, Quantization

RoundTrip = Callable[[Tensor], Tensor]
"""A weight → the values it has once quantised."""


def quantization_of(adapter: SavedAdapter) -> Quantization | None:
    """How the run that trained an adapter held its base; None in 16 or 32 bit, or where there is no run."""
    from mftrun.build import build

    peft: Any = (adapter.run_config or {}).get("peft")
    node = peft.get("quantization") if isinstance(peft, Mapping) else None
    return None if node is None else build(node, Quantization, "peft.quantization")


def round_trip(adapter: SavedAdapter) -> RoundTrip:
    """What quantising did to the weights of an adapter's base.

    Raises:
        ConfigError: The base was not quantised, nothing says how it was, or bitsandbytes is not installed.
    """
    if adapter.run_config is None:
        raise ConfigError(
            "job.base_weights",
            f"dequantize needs the run's config, and {adapter.folder} lies in no run's folder; use reload",
        )
    found = quantization_of(adapter)
    if found is None:
        raise ConfigError(
            "job.base_weights", f"dequantize: {adapter.run} did not quantise its base; use reload"
        )
    found.check()
    dtype = _loaded_in(adapter.run_config)
    if isinstance(found, FourBit):
        return lambda weight: _four_bit(weight.to(dtype or _half(weight)), found).to(weight.dtype)
    if isinstance(found, EightBit):
        return lambda weight: _eight_bit(weight).to(weight.dtype)
    raise ConfigError("job.base_weights", f"dequantize does not know {type(found).__name__}; use reload")


def quantized_weights(model: Any) -> Mapping[str, bool]:
    """The parameters that bitsandbytes quantises: weights of linear layers but the output head's.

    Args:
        model: A `PreTrainedModel`, as loaded.

    Returns:
        Name → whether the weight is turned first, as that of a `Conv1D` is.
    """
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        f"{path}.weight": isinstance(module, Conv1D)
        for path, module in model.named_modules()
        if type(module) in (nn.Linear, Conv1D) and module is not head
    }


def _loaded_in(config: Mapping[str, Any]) -> torch.dtype | None:
    """Of the weights, before they were quantised; None where the machine decided."""
    asked = config.get("model", {}).get("dtype", "auto")
    if asked in ("float32", "bfloat16", "float16"):
        return getattr(torch, asked)  # type: ignore[no-any-return]
    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return known.get(config.get("train", {}).get("precision", "auto"))


def _half(weight: Tensor) -> torch.dtype:
    return torch.bfloat16 if weight.dtype == torch.float32 else weight.dtype


def _four_bit(weight: Tensor, settings: FourBit) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(
        weight.contiguous(),
        blocksize=64,
        compress_statistics=settings.double_quant,
        quant_type=settings.quant_type,
    )
    value: Tensor = dequantize_4bit(packed, state)
    return value


def _eight_bit(weight: Tensor) -> Tensor:
    from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant

    packed, scales, _ = int8_vectorwise_quant(weight.to(torch.float16).contiguous())
    value: Tensor = int8_vectorwise_dequant(packed, scales)
    return value
