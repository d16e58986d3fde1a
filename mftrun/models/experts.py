"""The experts of mixture-of-experts models: how many there are, and which weights are theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from mftrun.models.parts import causal_lm_of, text_config_of

_NUMBER = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_PER_TOKEN = ("num_experts_per_tok", "moe_k", "moe_top_k")


def num_experts(config: Any) -> int:
    """Experts among which a layer chooses; 0 for a model without any.

    Args:
        config: The text configuration of a model.
    """
    return _first(config, _NUMBER)


def experts_per_token(config: Any) -> int:
    """Experts that a token chooses in a layer; those that see every token are not counted.

    Args:
        config: The text configuration of a model.
    """
    return _first(config, _PER_TOKEN)


def expert_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Path and weight of everything that belongs to single experts, their adapters included.

    Args:
        model: A causal language model, or a peft wrapper around one. Without experts there is nothing.
    """
    number = _experts_of(model)
    convolutions = {
        id(p) for module in model.modules() if isinstance(module, nn.Conv1d) for p in module.parameters()
    }
    for path, parameter in model.named_parameters():
        if number and id(parameter) not in convolutions and _is_experts(path, parameter, number):
            yield path, parameter


def expert_stacks(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Path and weight of every stack [experts, …, …] that holds one matrix of all experts of a layer.

    Args:
        model: A causal language model, without adapters.
    """
    return [(path, parameter) for path, parameter in expert_weights(model) if len(_shape(parameter)) == 3]


def describe_unquantized(model: nn.Module) -> str | None:
    """What a log should say of the experts of a quantised model; None without any whose weights are stacked.

    Args:
        model: As loaded, its linear layers quantised.
    """
    stacks = [parameter for _, parameter in expert_stacks(model)]
    if not stacks:
        return None
    dtype = str(stacks[0].dtype).removeprefix("torch.")
    count = sum(parameter.numel() for parameter in stacks)
    return (
        f"bitsandbytes quantises linear layers alone: the {count:,} weights of experts, which are stacked, "
        f"stay in {dtype} ({count * stacks[0].element_size() / 2**30:.1f} GiB)"
    )


def active_share(model: nn.Module) -> float:
    """The part of the experts of a layer that a token goes through; 1 for a model without any."""
    number = _experts_of(model)
    return experts_per_token(_text_config(model)) / number if number else 1.0


def _experts_of(model: nn.Module) -> int:
    config = _text_config(model)
    return 0 if config is None or not experts_per_token(config) else num_experts(config)


def _text_config(model: nn.Module) -> Any:
    causal_lm = causal_lm_of(model)
    return text_config_of(causal_lm) if hasattr(causal_lm, "config") else None


def _is_experts(path: str, parameter: nn.Parameter, number: int) -> bool:
    """By the name that most families give them; others stack them in layers of other names."""
    shape = _shape(parameter)
    return "experts" in path.split(".") or (len(shape) == 3 and shape[0] == number)


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    # ZeRO-3 leaves nothing where a parameter was but its shape.
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _first(config: Any, names: tuple[str, ...]) -> int:
    return next((int(found) for name in names if (found := getattr(config, name, None))), 0)
