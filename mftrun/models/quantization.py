"""Quantised weights for models whose own weights are frozen: NF4/FP4 (QLoRA) and LLM.int8()."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import BitsAndBytesConfig

_BLOCK = 64
_NESTED_BLOCK = 256
_FLOAT = ("float32", "bfloat16", "float16")


@runtime_checkable
class Quantization(Protocol):
    """How a model's linear layers hold their weights; embeddings, norms and output head stay as they are."""

    @property
    def bits(self) -> int:
        """Bits of one quantised weight, without its share of the constants."""
        ...

    @property
    def bytes_per_weight(self) -> float:
        """Bytes of one quantised weight, with its share of the constants."""
        ...

    def check(self) -> None:
        """Finds what is missing, without loading anything.

        Raises:
            ConfigError: A library is not installed.
        """
        ...

    def config(self, storage: torch.dtype | None = None) -> BitsAndBytesConfig:
        """What transformers is told.

        Args:
            storage: The floating dtype that packed weights must be stored in for the strategy to divide them
                over ranks; None or uint8 where it does not matter.

        Raises:
            ConfigError: Another storage was asked for in the settings.
        """
        ...


@dataclass(frozen=True)
class FourBit:
    """Four bits per weight, in blocks of 64 with a scale each (QLoRA, arXiv 2305.14314).

    Args:
        quant_type: The 16 values a weight can take: those of a normal distribution, or 4-bit floating point.
        double_quant: Whether the blocks' scales are quantised to 8 bit in turn.
        compute_dtype: What weights are expanded to in a forward pass; a linear layer computes in it.
        storage: Dtype the packed bits are stored as; `auto` takes what the strategy needs.
    """

    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = True
    compute_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    storage: Literal["auto", "uint8", "bfloat16", "float16", "float32"] = "auto"

    def __post_init__(self) -> None:
        _one_of("quant_type", self.quant_type, ("nf4", "fp4"))
        _one_of("compute_dtype", self.compute_dtype, _FLOAT)
        _one_of("storage", self.storage, ("auto", "uint8", *_FLOAT))

    @property
    def bits(self) -> int:
        """4."""
        return 4

    @property
    def bytes_per_weight(self) -> float:
        """Half a byte and a scale per block: 4 bytes, or with double quantisation 1 and a 256th of 4."""
        scale = 1 + 4 / _NESTED_BLOCK if self.double_quant else 4
        return 0.5 + scale / _BLOCK

    def check(self) -> None:
        """See `Quantization.check`."""
        _check_installed()

    def config(self, storage: torch.dtype | None = None) -> BitsAndBytesConfig:
        """See `Quantization.config`."""
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=self.compute_dtype,
            bnb_4bit_quant_storage=self._storage(storage),
        )

    def _storage(self, needed: torch.dtype | None) -> str:
        name = "uint8" if needed is None else str(needed).removeprefix("torch.")
        if self.storage == "auto":
            return name
        if name not in ("uint8", self.storage):
            raise ConfigError(
                "peft.quantization.storage",
                f"this strategy needs weights stored as {name}, not {self.storage}; leave it at auto",
            )
        return self.storage


@dataclass(frozen=True)
class EightBit:
    """Eight bits per weight, rows scaled by their largest (LLM.int8(), arXiv 2208.07339).

    Args:
        threshold: Columns of inputs with a value above it are multiplied in 16 bit; 0 leaves that out. Which
            columns those are depends on all rows of a micro-batch together: above 0 (the paper has 6), the
            losses of a sample depend a little on its neighbours; packed rows are refused where that shows.
    """

    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise ConfigError("peft.quantization.threshold", f"must be 0 or more, not {self.threshold}")

    @property
    def bits(self) -> int:
        """8."""
        return 8

    @property
    def bytes_per_weight(self) -> float:
        """1; the scale of a row is too little to count."""
        return 1.0

    def check(self) -> None:
        """See `Quantization.check`."""
        _check_installed()

    def config(self, storage: torch.dtype | None = None) -> BitsAndBytesConfig:
        """See `Quantization.config`.

        Raises:
            ConfigError: The strategy needs a storage of its own; 8-bit weights are always stored as int8.
        """
        from transformers import BitsAndBytesConfig

        if storage is not None and storage.is_floating_point:
            raise ConfigError(
                "peft.quantization", "8-bit weights cannot be divided over ranks; use peft=qlora"
            )
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=float(self.threshold))


def quantized_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Path and module of every layer of a model whose weights bitsandbytes holds.

    Args:
        model: Any module.
    """
    return [(path, module) for path, module in model.named_modules() if _is_quantized(module)]


def keep_differentiable(model: nn.Module) -> None:
    """Bars 4-bit layers from repacking their weights for inference.

    On CPUs with avx512_bf16 a forward in evaluation mode repacks them, for good, into a form that has no
    backward: later steps would silently lose what flows through the frozen weights. Every adapter still gets
    a gradient by way of its neighbours, so that only comparing gradients shows it.

    Args:
        model: Any module; layers that are not quantised are left alone.
    """
    for _, module in quantized_layers(model):
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def quiet_casts() -> None:
    """Bars bitsandbytes from warning at every call of every 8-bit layer that it casts inputs to float16."""
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_not_about_casts)


def _not_about_casts(record: logging.LogRecord) -> bool:
    return "inputs will be cast" not in record.getMessage()


def _is_quantized(module: nn.Module) -> bool:
    """Peft's wrappers of such layers have the same names."""
    kinds = ((kind.__module__.partition(".")[0], kind.__name__) for kind in type(module).__mro__)
    return any(kind in (("bitsandbytes", "Linear4bit"), ("bitsandbytes", "Linear8bitLt")) for kind in kinds)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"peft.quantization.{name}", f"must be one of {', '.join(known)}, not {value!r}")


def _check_installed() -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "peft.quantization",
            'bitsandbytes is not installed: pip install "mftrun[qlora]", or use peft=lora',
        )
