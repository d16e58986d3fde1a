"""Which layers adapters go on: what a setting says, found in a model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError
from mftrun.models.adapters.checks import ALL_LINEAR, ATTENTION, names_of, refuse_missing
from mftrun.models.experts import expert_stacks, expert_weights, num_experts
from mftrun.models.parts import causal_lm_of, output_head_of, text_config_of

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)


def layers_to_adapt(setting: str | Sequence[str], model: nn.Module, key: str) -> str | list[str]:
    """The layers that `target_modules` means, as peft takes them.

    Args:
        setting: `all-linear`, `attention`, a name, or names.
        model: As loaded.
        key: The setting's key.

    Raises:
        ConfigError: A named layer does not exist, or no attention was found.
    """
    if setting == ALL_LINEAR:
        return ALL_LINEAR
    if setting == ATTENTION:
        return _shortest(_attention_layers(model, key), model)
    refuse_missing(key, names_of(setting), model)
    return list(names_of(setting))


def expert_stacks_to_adapt(model: nn.Module, key: str) -> list[str]:
    """The stacked weights of experts, as peft takes them: the last components of their paths.

    Args:
        model: As loaded.
        key: The setting's key.

    Raises:
        ConfigError: It has none.
    """
    names = sorted({".".join(path.split(".")[-2:]) for path, _ in expert_stacks(model)})
    if not names:
        raise ConfigError(
            key, f"{type(model).__name__} has no experts whose weights are stacked; leave it out"
        )
    return names


def low_rank_layers(setting: str | Sequence[str], model: nn.Module, key: str) -> str | list[str]:
    """The same as `layers_to_adapt` for low-rank adapters, which peft treats apart in models of experts.

    Checkpoints of some families once held every expert by itself. Peft still takes the names from then, and
    `all-linear`, for the stacked weights of all experts and for the router.

    Raises:
        ConfigError: As `layers_to_adapt`; or peft would take a named layer for another.
    """
    if setting != ALL_LINEAR:
        targets = layers_to_adapt(setting, model, key)
        _refuse_renamed(key, names_of(setting), model)
        return targets
    if not any(True for _ in expert_weights(model)):
        return ALL_LINEAR
    kept = set(_linear(model)) - set(routers(model)) - _output_heads(model)
    targets = _shortest(sorted(kept), model)
    renamed = [name for name in targets if _renamed(name, model)]
    if renamed:
        log.warning(
            "peft cannot adapt %s in models of type %s: they stay as they are",
            ", ".join(renamed),
            causal_lm_of(model).config.model_type,
        )
    return [name for name in targets if name not in renamed]


def routers(model: nn.Module) -> list[str]:
    """Paths of the linear layers that choose experts: `all-linear` does not mean them."""
    from torch import nn

    number = num_experts(text_config_of(causal_lm_of(model)))
    return [
        path
        for path, module in model.named_modules()
        if number and isinstance(module, nn.Linear) and module.out_features == number and _is_router(path)
    ]


def _is_router(path: str) -> bool:
    return path.rpartition(".")[2] in ("gate", "router") or ".router." in path


def _output_heads(model: nn.Module) -> set[str]:
    head = output_head_of(causal_lm_of(model))
    return {path for path, module in model.named_modules() if module is head}


def _refuse_renamed(key: str, names: Sequence[str], model: nn.Module) -> None:
    renamed = [name for name in names if _renamed(name, model)]
    if renamed:
        raise ConfigError(
            key,
            f"peft takes {', '.join(renamed)} for weights of experts in models of type "
            f"{causal_lm_of(model).config.model_type}; use peft.experts=true to adapt experts",
        )


def _renamed(name: str, model: nn.Module) -> bool:
    """Whether peft would adapt something else instead of the layer of this name."""
    from peft import LoraConfig

    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:  # an older peft takes names as they are
        return False
    config = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(config, causal_lm_of(model), None)
    except ValueError:
        return True
    return name not in (config.target_modules or ()) and f"{name}.weight" not in (
        config.target_parameters or ()
    )


def _attention_layers(model: nn.Module, key: str) -> list[str]:
    """By the classes of modules around them, which transformers names alike in all families."""
    inside = [path for path, module in model.named_modules() if "Attention" in type(module).__name__]
    found = [path for path in _linear(model) if any(path.startswith(f"{one}.") for one in inside)]
    if not found:
        raise ConfigError(
            key,
            f"{type(model).__name__} has no linear layers in attention; use all-linear or a list of names",
        )
    return found


def _linear(model: nn.Module) -> list[str]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D  # the linear layer of GPT-2

    return [path for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def _shortest(chosen: Sequence[str], model: nn.Module) -> list[str]:
    """The shortest ends of paths that no other module shares: an adapter's config names them for good."""
    others: Any = {path for path, _ in model.named_modules()} - set(chosen)
    return sorted({_ending(path, others) for path in chosen})


def _ending(path: str, others: Iterable[str]) -> str:
    parts = path.split(".")
    endings = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
    return next(
        (end for end in endings if not any(one == end or one.endswith(f".{end}") for one in others)), path
    )
