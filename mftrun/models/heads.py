"""Output heads: nll of target tokens without ever holding the logits of all of them.

The peak memory of a head is that of one chunk of target tokens. All heads agree with
`cross_entropy(model(...).logits)` in value and in gradient.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from mftrun.errors import ConfigError
from mftrun.models.final_logits import PLAIN, FinalLogits, final_logits_of
from mftrun.models.parts import causal_lm_of, output_head_of, text_config_of

KINDS = ("auto", "fused", "chunked", "liger")
_MAX_LOGITS = 2**26
_LIGER_NEEDED = (0, 8, 1)


Projection = Callable[[Tensor], Tensor]


class Head(Protocol):
    """Projects hidden states through the output head and returns losses."""

    def nll(self, output: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood of each target.

        Args:
            output: The model's output head.
            hidden: [T, hidden size], the states that predict the targets.
            targets: int64 [T], token ids.

        Returns:
            float32 [T].
        """
        ...


@dataclass(frozen=True)
class ChunkedHead:
    """Applies the head chunk by chunk, and computes each chunk again in the backward pass.

    Right for every head: biased, scaled, soft-capped, with an adapter, quantized.

    Args:
        chunk_size: Target tokens in a chunk.
        final: What the family does to the output of the head.
    """

    chunk_size: int = 1024
    final: FinalLogits = PLAIN

    def nll(self, output: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
        """See `Head.nll`."""
        project = _projection(output)
        if targets.shape[0] <= self.chunk_size or not torch.is_grad_enabled():
            return self._each(partial(self._chunk, project), hidden, targets)
        # A plain linear layer draws no random numbers; an adapter's dropout does.
        random = project is output
        chunk = partial(self._chunk, project)
        return self._each(
            partial(checkpoint, chunk, use_reentrant=False, preserve_rng_state=random), hidden, targets
        )

    def _each(self, function: Any, hidden: Tensor, targets: Tensor) -> Tensor:
        pairs = zip(torch.split(hidden, self.chunk_size), torch.split(targets, self.chunk_size), strict=True)
        return torch.cat([function(*pair) for pair in pairs])

    def _chunk(self, project: Projection, hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.final(project(hidden).float()), targets, reduction="none")


@dataclass(frozen=True)
class FusedHead:
    """Torch's chunked `linear_cross_entropy`, on the weight of a plain head, in float32.

    Args:
        chunk_size: Target tokens in a chunk.
    """

    chunk_size: int = 1024

    def nll(self, output: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
        """See `Head.nll`."""
        if targets.shape[0] == 0:
            return ChunkedHead().nll(output, hidden, targets)
        function: Any = F.linear_cross_entropy
        options = nn.LinearCrossEntropyOptions(batch_chunk_size=self.chunk_size)
        weight: Tensor = output.weight  # type: ignore[assignment]
        # It returns the loss in the dtype of its input: in bfloat16 that is three digits.
        with torch.autocast(hidden.device.type, enabled=False):
            result: Tensor = function(
                hidden.float(), weight.float(), targets, reduction="none", options=options
            )
        return result


@dataclass(frozen=True)
class LigerHead:
    """Liger's Triton kernel, on the weight of a plain or biased head.

    Args:
        scale: Factor on the logits; 1 where the head has a bias.
    """

    scale: float = 1.0

    def nll(self, output: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
        """See `Head.nll`."""
        if targets.shape[0] == 0:
            return ChunkedHead().nll(output, hidden, targets)
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        weight, bias = _compute_weights(output, hidden)
        scaled = hidden.to(weight.dtype) * self.scale
        result: Tensor = liger_fused_linear_cross_entropy(
            scaled, weight, targets, bias=bias, reduction="none"
        )
        return result.float()


@dataclass(frozen=True)
class Choice:
    """A head and why it was taken.

    Attributes:
        head: The head.
        reason: For the log.
    """

    head: Head
    reason: str


def head_for(model: nn.Module, kind: str = "auto", compute_dtype: torch.dtype = torch.float32) -> Choice:
    """The head that suits a model.

    Args:
        model: A causal language model, or a peft wrapper around one, with its adapters in place.
        kind: `auto`, `fused`, `chunked` or `liger`.
        compute_dtype: Of the matrix products: that of autocast, or without it that of the weights.

    Raises:
        ConfigError: The kind is unknown, not installed, or wrong for this model.
    """
    check_kind(kind)
    causal_lm = causal_lm_of(model)
    final = final_logits_of(text_config_of(causal_lm))
    output = output_head_of(causal_lm)
    chunk = chunk_size_for(int(text_config_of(causal_lm).vocab_size))
    if kind == "liger":
        return Choice(_liger(output, final), "liger: asked for")
    obstacle = _obstacle_to_fusing(output, final)
    if kind == "fused" and obstacle:
        raise ConfigError("model.head", f"fused is impossible: {obstacle}; use auto or chunked")
    if kind == "auto" and not obstacle and compute_dtype != torch.float32:
        obstacle = f"linear_cross_entropy returns losses in {compute_dtype}, which is too coarse"
    if kind == "chunked" or obstacle:
        return Choice(ChunkedHead(chunk, final), f"chunked: {obstacle or 'asked for'}")
    return Choice(FusedHead(chunk), "fused: plain linear head, float32")


def check_kind(kind: str) -> None:
    """Refuses a head that is unknown or not installed, before any model is loaded.

    Args:
        kind: `auto`, `fused`, `chunked` or `liger`.

    Raises:
        ConfigError: It is unknown, or a library is missing or too old.
    """
    if kind not in KINDS:
        raise ConfigError("model.head", f"must be one of {', '.join(KINDS)}, not {kind!r}")
    if kind == "liger":
        _check_liger()
    if kind == "fused" and not _torch_can_fuse():
        raise ConfigError(
            "model.head", f"fused needs torch 2.13, not {torch.__version__}; use auto or chunked"
        )


def chunk_size_for(vocab_size: int) -> int:
    """Target tokens in a chunk, so that its logits take about 256 MiB in float32."""
    return max(1, _MAX_LOGITS // vocab_size)


def _torch_can_fuse() -> bool:
    return hasattr(F, "linear_cross_entropy") and hasattr(nn, "LinearCrossEntropyOptions")


def _obstacle_to_fusing(output: nn.Module, final: FinalLogits) -> str | None:
    if not _torch_can_fuse():
        return f"torch {torch.__version__} has no linear_cross_entropy"
    if not final.plain:
        return "the family scales or caps its logits"
    # Subclasses and wrappers (quantized, adapted, parametrized) compute more than weight @ hidden.
    if not is_plain(output):
        return f"the head ({type(output).__name__}) is more than a linear layer of this rank alone"
    return "the head has a bias" if output.bias is not None else None


def _liger(output: nn.Module, final: FinalLogits) -> LigerHead:
    if not is_plain(output):
        raise ConfigError(
            "model.head", f"liger needs a plain linear head, not {type(output).__name__}; use chunked"
        )
    if output.bias is not None and final.scale != 1.0:
        raise ConfigError("model.head", "liger cannot scale the logits of a head with a bias; use chunked")
    if final.cap is not None:
        raise ConfigError(
            "model.head", "liger is not verified for families that cap their logits; use chunked"
        )
    return LigerHead(final.scale)


def _check_liger() -> None:
    if importlib.util.find_spec("liger_kernel") is None:
        raise ConfigError("model.head", 'liger is not installed: pip install "mftrun[liger]", or use auto')
    version = importlib.metadata.version("liger_kernel")
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < _LIGER_NEEDED:
        needed = ".".join(map(str, _LIGER_NEEDED))
        raise ConfigError(
            "model.head", f"liger {version} has wrong gradients per token; install {needed} or newer"
        )


def is_plain(output: nn.Module) -> bool:
    """Whether a head is its weight and bias alone: not adapted, quantised, parametrised or divided."""
    return type(output) is nn.Linear and not isinstance(output.weight, DTensor)


def _projection(output: nn.Module) -> Projection:
    """From hidden states to what the head makes of them.

    Ranks have chunks in different numbers. A plain head is not called as a module, since ZeRO-3 gathers the
    weights of modules call by call, and would wait for calls that other ranks do not make.
    """
    if not is_plain(output):
        return output
    return partial(F.linear, weight=output.weight, bias=output.bias)  # type: ignore[arg-type]


def _compute_weights(output: nn.Module, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
    """Weight and bias in the dtype that autocast would compute in; custom kernels do not see autocast."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    bias: Tensor | None = output.bias  # type: ignore[assignment]
    weight: Tensor = output.weight  # type: ignore[assignment]
    return weight.to(dtype), None if bias is None else bias.to(dtype)
