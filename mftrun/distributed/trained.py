"""What training changes, by the names of the parameters: trained weights, saved buffers, optimizer state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

WEIGHT = "model."
OPTIMIZER = "optimizer."


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that have a gradient, by name; shared ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def saved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that belong to the model's state, by name."""
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in saved}


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    """Views of the live tensors of a model and a torch optimizer; see `Engine.state`.

    Args:
        model: The model-with-nll.
        optimizer: Its optimizer, whose state is made where there is none yet; None leaves it out.
    """
    trained = trained_parameters(model)
    tensors = {**trained, **saved_buffers(model)}
    state = {f"{WEIGHT}{name}": tensor.detach() for name, tensor in tensors.items()}
    if optimizer is not None:
        begin_state(optimizer, (group["params"] for group in optimizer.param_groups))
        for name, parameter in trained.items():
            for key, value in optimizer.state[parameter].items():
                state[f"{OPTIMIZER}{name}.{key}"] = value
    return state


def begin_state(optimizer: torch.optim.Optimizer, params: Iterable[Iterable[Tensor]]) -> None:
    """Makes the state that an optimizer's first step would make, where there is none.

    It steps by gradients of zero at a rate of zero, which changes no weight, and takes the step out of what
    it noted.

    Args:
        optimizer: An optimizer that keeps what it knows of a parameter in tensors, zero at first.
        params: The parameters of each of its groups.
    """
    if optimizer.state:
        return
    kept = [(group["params"], group["lr"]) for group in optimizer.param_groups]
    for group, own in zip(optimizer.param_groups, params, strict=True):
        group["params"], group["lr"] = list(own), 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, (own, rate) in zip(optimizer.param_groups, kept, strict=True):
        group["params"], group["lr"] = own, rate
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()
