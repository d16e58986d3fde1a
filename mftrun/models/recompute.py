"""Gradient checkpointing: less memory for a second forward."""

from __future__ import annotations

from torch import nn

from mftrun.errors import ConfigError
from mftrun.models.parts import causal_lm_of


def recompute_activations(model: nn.Module) -> None:
    """Makes every decoder layer keep only its input, and compute the rest again in the backward pass.

    Args:
        model: A causal language model, or a peft wrapper around one, with its adapters in place.

    Raises:
        ConfigError: The family does not support it.
    """
    causal_lm = causal_lm_of(model)
    if not causal_lm.supports_gradient_checkpointing:
        family = causal_lm.config.model_type
        raise ConfigError(
            "train.gradient_checkpointing", f"{family!r} models do not support it; leave it off"
        )
    # The name since transformers 5.23, then the one before.
    enable = getattr(causal_lm, "activation_checkpointing_enable", None)
    if enable is not None:
        enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        causal_lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
