"""Refusals that adapters share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError
from mftrun.nearest import unknown

if TYPE_CHECKING:
    from torch import nn

ALL_LINEAR = "all-linear"
ATTENTION = "attention"


def require(name: str, value: Any, holds: bool, wanted: str) -> None:
    """Refuses a setting of the `peft` group.

    Raises:
        ConfigError: It does not hold.
    """
    if not holds:
        raise ConfigError(f"peft.{name}", f"must be {wanted}, not {value!r}")


def names_of(targets: str | Sequence[str] | None) -> Sequence[str]:
    """The layers that a setting names one by one."""
    if isinstance(targets, str):
        return () if targets in (ALL_LINEAR, ATTENTION) else (targets,)
    return targets or ()


def refuse_missing(key: str, names: Sequence[str], model: nn.Module) -> None:
    """Refuses names of layers that a model does not have; peft complains only when it has none of them.

    Args:
        key: The setting.
        names: The last components of layers' paths, or whole paths.
        model: As loaded.

    Raises:
        ConfigError: One does not exist.
    """
    paths = [path for path, _ in model.named_modules()]
    for name in names:
        if not any(path == name or path.endswith(f".{name}") for path in paths):
            raise ConfigError(key, unknown(name, _linear_layers(model), f"the model has no layer {name!r}"))


def _linear_layers(model: nn.Module) -> set[str]:
    from torch import nn

    return {
        path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, nn.Linear)
    }
