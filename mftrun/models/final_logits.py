"""What a family does to the output of its head before the softmax: scaling and soft-capping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Field names alone do not tell: `logits_scaling` divides in one family and multiplies in another.
_MULTIPLIERS: Mapping[str, str] = MappingProxyType(
    {
        "cohere": "logit_scale",
        "cohere2": "logit_scale",
        "cohere2_moe": "logit_scale",
        "falcon_h1": "lm_head_multiplier",
        "hyperclovax": "logits_scaling",
    }
)
_DIVISORS: Mapping[str, str] = MappingProxyType(
    {
        "granite": "logits_scaling",
        "granite_swa": "logits_scaling",
        "granitemoe": "logits_scaling",
        "granitemoe_swa": "logits_scaling",
        "granitemoehybrid": "logits_scaling",
        "granitemoeshared": "logits_scaling",
        "minicpm3": "logits_scaling",
    }
)
_SOFT_CAPS: Mapping[str, str] = MappingProxyType(
    {
        "gemma2": "final_logit_softcapping",
        "gemma3_text": "final_logit_softcapping",
        "gemma3n_text": "final_logit_softcapping",
        "nanochat": "final_logit_softcapping",
        "recurrent_gemma": "logits_soft_cap",
        "vaultgemma": "final_logit_softcapping",
        "xlstm": "output_logit_soft_cap",
    }
)


@dataclass(frozen=True)
class FinalLogits:
    """Logits = cap * tanh(scale * head output / cap), without the tanh where there is no cap.

    Attributes:
        scale: Factor on the output of the head.
        cap: Bound on the absolute value of a logit.
    """

    scale: float = 1.0
    cap: float | None = None

    @property
    def plain(self) -> bool:
        """Whether the output of the head already is the logits."""
        return self.scale == 1.0 and self.cap is None

    def __call__(self, head_output: Tensor) -> Tensor:
        """The logits, in the shape and dtype of `head_output`."""
        logits = head_output if self.scale == 1.0 else head_output * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


PLAIN = FinalLogits()


def final_logits_of(config: PretrainedConfig) -> FinalLogits:
    """The rule of a model's family.

    A family that is not listed is taken to have none; `verify_against_logits` then says whether that is so.

    Args:
        config: The model's configuration.
    """
    family = config.model_type
    factor = float(getattr(config, _MULTIPLIERS.get(family, ""), None) or 1.0)
    divisor = float(getattr(config, _DIVISORS.get(family, ""), None) or 1.0)
    return FinalLogits(factor / divisor, getattr(config, _SOFT_CAPS.get(family, ""), None))
