"""What engines have in common that step with a torch optimizer of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mftrun.distributed.ranks import Ranks
from mftrun.distributed.trained import training_state
from mftrun.models.with_nll import ModelWithNll

Result = TypeVar("Result")


class TorchEngine:
    """Steps, and hands out its state; see `Engine`. How gradients come about is for others to say.

    Args:
        ranks: Those that train.
        model: The prepared model: what is called.
        bare: The model-with-nll inside of it.
        optimizer: Steps its parameters.
        max_grad_norm: Upper bound of the gradient's norm; None does not clip.
    """

    def __init__(
        self,
        ranks: Ranks,
        model: nn.Module,
        bare: ModelWithNll,
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float | None,
    ) -> None:
        self.ranks = ranks
        self.model = model
        self.bare = bare
        self._optimizer = optimizer
        self._max_norm = math.inf if max_grad_norm is None else max_grad_norm

    def step(self, rate: float) -> float:
        """See `Engine.step`."""
        norm = self._clip()
        if math.isfinite(norm):
            set_rate(self._optimizer, rate)
            self._optimizer.step()
        self._optimizer.zero_grad()
        return norm

    def within_forward(self, function: Callable[[ModelWithNll], Result]) -> Result:
        """See `Engine.within_forward`: weights that can be computed with anywhere."""
        with torch.no_grad():
            return function(self.bare)

    def state(self) -> dict[str, Any]:
        """See `Engine.state`."""
        return training_state(self.bare, self._optimizer)

    def load(self, read: Callable[[dict[str, Any]], None], *, optimizer: bool = True) -> None:
        """See `Engine.load`."""
        read(training_state(self.bare, self._optimizer if optimizer else None))

    def gathered(self, names: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        """See `Engine.gathered`."""
        for name, tensor in self.bare.state_dict().items():
            if names(name) and isinstance(tensor, Tensor):
                whole = whole_tensor(tensor.detach(), self.ranks.device)
                yield name, whole.cpu() if self.ranks.is_main else torch.empty(0)

    def _clip(self) -> float:
        """Scales the gradients down to the greatest norm, and returns the norm they had."""
        norm = torch.nn.utils.clip_grad_norm_(self.bare.parameters(), self._max_norm)
        return float(whole_tensor(norm, self.ranks.device))


def whole_tensor(tensor: Any, device: torch.device) -> Tensor:
    """A tensor that ranks have divided, as a whole on each of them; any other as it is.

    Args:
        tensor: A `DTensor`, or not.
        device: Where ranks exchange messages.
    """
    whole: Tensor = tensor.to(device).full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
