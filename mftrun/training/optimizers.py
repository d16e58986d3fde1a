"""Optimizers, built over a model's trainable parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    import torch


@runtime_checkable
class OptimizerFactory(Protocol):
    """Makes an optimizer once the model is there."""

    @property
    def lr(self) -> float:
        """Peak learning rate."""

    def build(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the model's trainable parameters."""


@dataclass(frozen=True)
class AdamW:
    """AdamW (arXiv 1711.05101), fused where the parameters' device has the kernel.

    Matrices and embeddings are decayed; biases and norms (fewer than two dimensions) are not.

    Args:
        lr: Peak learning rate.
        betas: Decay rates of the two moments.
        eps: Term that keeps the division finite.
        weight_decay: Decoupled decay, per step, as a share of ``lr``.

    Raises:
        ConfigError: A value outside its range.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError("optimizer.lr", f"must be above 0, not {self.lr}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError("optimizer.betas", f"must be two numbers in [0, 1), not {list(self.betas)}")
        if not self.eps > 0:
            raise ConfigError("optimizer.eps", f"must be above 0, not {self.eps}")
        if self.weight_decay < 0:
            raise ConfigError("optimizer.weight_decay", f"must be 0 or more, not {self.weight_decay}")

    def build(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimizer of ``model``'s trainable parameters, in two groups: decayed and not decayed."""
        import torch

        trainable = [p for p in model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trainable if _dimensions(p) >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if _dimensions(p) < 2], "weight_decay": 0.0},
        ]
        fused = all(p.device.type in ("cuda", "cpu") and p.is_floating_point() for p in trainable)
        betas = (self.betas[0], self.betas[1])
        return torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=self.lr, betas=betas, eps=self.eps, fused=fused
        )


def _dimensions(parameter: torch.Tensor) -> int:
    """Of the whole parameter: DeepSpeed leaves nothing of one that it has divided, but notes its shape."""
    return len(getattr(parameter, "ds_shape", parameter.shape))
