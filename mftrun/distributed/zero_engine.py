"""Training a model through DeepSpeed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from mftrun.distributed.base import called_within
from mftrun.distributed.ranks import Ranks
from mftrun.distributed.torch_engine import set_rate
from mftrun.distributed.zero_state import refresh, whole_parameter, zero_state
from mftrun.models.with_nll import ModelWithNll

Result = TypeVar("Result")


class ZeroEngine:
    """Trains a model through DeepSpeed; see `Engine`.

    Args:
        ranks: Those that train it.
        engine: DeepSpeed's.
    """

    def __init__(self, ranks: Ranks, engine: Any) -> None:
        self.ranks = ranks
        self.model = engine
        self.bare: ModelWithNll = engine.module

    def micro_step(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """See `Engine.micro_step`."""
        self.model.set_gradient_accumulation_boundary(is_boundary=is_last)
        return nullcontext()

    def backward(self, share: Tensor) -> None:
        """DeepSpeed averages gradients over the ranks, so that each share is multiplied by their number."""
        self.model.backward(share * self.ranks.count, scale_wrt_gas=False)

    def step(self, rate: float) -> float:
        """See `Engine.step`. DeepSpeed clips, and skips a step whose norm is not finite."""
        set_rate(self.model.optimizer, rate)
        self.model.step()
        norm = float(self.model.get_global_grad_norm())
        return math.inf if self.model.optimizer.overflow else norm

    def within_forward(self, function: Callable[[ModelWithNll], Result]) -> Result:
        """See `Engine.within_forward`."""
        return called_within(self.model, function)

    def state(self) -> dict[str, Any]:
        """See `Engine.state`. The weights are the float32 ones that are stepped."""
        return zero_state(self.model)

    def load(self, read: Callable[[dict[str, Any]], None], *, optimizer: bool = True) -> None:
        """See `Engine.load`."""
        read(zero_state(self.model, optimizer=optimizer))
        refresh(self.model)

    def gathered(self, names: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        """See `Engine.gathered`. Trained weights are the float32 ones that are stepped."""
        parameters = dict(self.bare.named_parameters(remove_duplicate=False))
        for name, tensor in self.bare.state_dict().items():
            if names(name):
                whole = whole_parameter(parameters[name]) if name in parameters else tensor
                yield name, whole.detach().cpu() if self.ranks.is_main else torch.empty(0)
