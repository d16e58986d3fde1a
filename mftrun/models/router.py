"""The load-balancing loss of mixture-of-experts models."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor

from mftrun.models.parts import text_config_of


def router_coefficient(causal_lm: Any) -> float:
    """The model's own coefficient of its load-balancing loss; 0 when it has no such loss."""
    module = sys.modules[type(causal_lm).__module__]
    if not hasattr(module, "load_balancing_loss_func"):
        return 0.0
    return float(getattr(text_config_of(causal_lm), "router_aux_loss_coef", None) or 0.0)


def router_loss(causal_lm: Any, router_logits: tuple[Tensor, ...]) -> Tensor:
    """The load-balancing loss (arXiv 2101.03961, Eq. 4-6), a scalar without its coefficient.

    Args:
        causal_lm: A model whose `router_coefficient` is not 0.
        router_logits: [rows * length, experts] of each layer that has experts.
    """
    config = text_config_of(causal_lm)
    experts = getattr(causal_lm, "num_experts", None) or getattr(config, "num_experts", None)
    function = sys.modules[type(causal_lm).__module__].load_balancing_loss_func
    balance: Tensor = function(router_logits, experts or config.num_local_experts, config.num_experts_per_tok)
    return balance
