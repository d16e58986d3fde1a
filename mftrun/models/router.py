"""The load-balancing loss of mixture-of-experts models, in parts that add up over micro-batches and ranks.

With f the shares of expert choices and P the mean routing probabilities of all tokens and layers of the
global batch, the loss is coefficient * E * sum_e f_e P_e (arXiv 2101.03961, Eq. 4-6). The choices have no
gradient, and P is a sum over tokens: once f is known, every micro-batch can add its tokens' part by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mftrun.errors import ConfigError
from mftrun.models.experts import experts_per_token, num_experts
from mftrun.models.parts import text_config_of

_COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef")


class RouterSums(NamedTuple):
    """What some tokens bring to the loss, of E experts. A tuple, as `NllOutput` is.

    Attributes:
        choices: float32 [E], how many of the tokens chose each expert, a mean over the layers; no gradient.
        probabilities: float32 [E], routing probabilities summed over the tokens, as a mean over the layers;
            times E and the coefficient.
    """

    choices: Tensor
    probabilities: Tensor

    def share(self, choices: Tensor, tokens: int) -> Tensor:
        """The part of the global batch's loss that comes from these tokens, a float64 scalar.

        Args:
            choices: [E], the choices of all tokens of the global batch.
            tokens: Their number, without padding.
        """
        return torch.dot(choices.double() / tokens, self.probabilities.double() / tokens)


@dataclass(frozen=True)
class RouterLoss:
    """The load-balancing loss of one model.

    Attributes:
        coefficient: The model's own, above 0.
        experts: E, those of one layer.
        top_k: Experts that a token chooses in each layer.
    """

    coefficient: float
    experts: int
    top_k: int

    def sums(self, logits: Sequence[Tensor], real: Tensor | None = None) -> RouterSums:
        """What the tokens of a micro-batch bring to the loss.

        Args:
            logits: [tokens, E] of each layer that has experts.
            real: bool [tokens], False for padding; None takes all as tokens.
        """
        choices, probabilities = zip(*(self._of_layer(layer, real) for layer in logits), strict=True)
        layers = len(logits)
        scale = self.coefficient * self.experts / layers
        return RouterSums(torch.stack(choices).sum(0) / layers, torch.stack(probabilities).sum(0) * scale)

    def _of_layer(self, logits: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
        probabilities = torch.softmax(logits, dim=-1, dtype=torch.float32)
        chosen = probabilities.detach().topk(self.top_k).indices
        choices = torch.zeros_like(probabilities).scatter_(1, chosen, 1.0)
        if real is not None:
            choices, probabilities = choices * real[:, None], probabilities * real[:, None]
        return choices.sum(0), probabilities.sum(0)


def router_loss_of(causal_lm: Any) -> RouterLoss | None:
    """The load-balancing loss that a model has of its own; None without one, or with a coefficient of 0.

    Raises:
        ConfigError: It has one that is defined in another way.
    """
    own = getattr(sys.modules[type(causal_lm).__module__], "load_balancing_loss_func", None)
    coefficient = _coefficient(causal_lm)
    if own is None or coefficient == 0:
        return None
    config = text_config_of(causal_lm)
    loss = RouterLoss(coefficient, num_experts(config), experts_per_token(config))
    if not _agrees(loss, own):
        raise ConfigError(
            "model",
            f"{type(causal_lm).__name__} defines its router loss in a way that is not supported; "
            "set its coefficient (router_aux_loss_coef) to 0 in config.json to train without it",
        )
    return loss


def describe_router_loss(causal_lm: Any) -> str | None:
    """What a log should say of the router loss; None for a model without experts."""
    config = text_config_of(causal_lm)
    if not num_experts(config):
        return None
    loss = router_loss_of(causal_lm)
    if loss is not None:
        return f"the model's own, with its coefficient {loss.coefficient:g}"
    if hasattr(sys.modules[type(causal_lm).__module__], "load_balancing_loss_func"):
        return "none: its coefficient is 0 in the model's config.json"
    return f"none: transformers has none for {type(causal_lm).__name__}"


def _coefficient(causal_lm: Any) -> float:
    """As the model holds it; else as its configuration does."""
    found = [
        getattr(holder, name, None)
        for holder in (causal_lm, text_config_of(causal_lm))
        for name in _COEFFICIENTS
    ]
    return float(next((value for value in found if value is not None), 0.0))


def _agrees(loss: RouterLoss, own: Any) -> bool:
    """Whether the model's own function gives the same for a few random tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = 7
    logits = tuple(torch.randn(tokens, loss.experts, generator=generator) for _ in range(2))
    sums = loss.sums(logits)
    try:
        expected = loss.coefficient * own(logits, loss.experts, loss.top_k)
    except (TypeError, ValueError, IndexError, RuntimeError):
        return False
    return bool(torch.isclose(sums.share(sums.choices, tokens).float(), expected.float(), rtol=1e-4))
