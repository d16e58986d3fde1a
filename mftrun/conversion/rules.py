"""How one tensor of a legacy checkpoint becomes tensors of the native class.

Every split also works on tensors of the meta device, so that a whole conversion can be checked by shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    import torch

Split = Callable[["torch.Tensor"], Sequence["torch.Tensor"]]


def whole(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """The tensor as it is."""
    return (tensor,)


@dataclass(frozen=True)
class Rule:
    """One legacy tensor and what becomes of it.

    Args:
        name: Its legacy name; `{}` stands for the number of the layer.
        targets: Native names of its parts.
        split: Cuts it into these parts.
        optional: Whether it may be absent.
    """

    name: str
    targets: tuple[str, ...]
    split: Split = whole
    optional: bool = False

    def parts(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """The native tensors, by name; they may share the memory of ``tensor``.

        Raises:
            ConfigError: The tensor's shape is not what config.json says.
        """
        try:
            return dict(zip(self.targets, self.split(tensor), strict=True))
        except (RuntimeError, ValueError) as error:
            shape = list(tensor.shape)
            message = f"{self.name} has shape {shape}, which its config.json does not allow: {error}"
            raise ConfigError("source", message) from error


def renamed(pairs: Iterable[tuple[str, str]]) -> list[Rule]:
    """Rules for tensors that only change their names: pairs of the legacy and the native name."""
    return [Rule(legacy, (native,)) for legacy, native in pairs]


def by_name(rules: Iterable[Rule], layers: int) -> dict[str, Rule]:
    """Rules of every layer, by the full legacy name."""
    filled = (
        replace(rule, name=rule.name.format(n), targets=tuple(target.format(n) for target in rule.targets))
        for rule in rules
        for n in (range(layers) if "{}" in rule.name else (0,))
    )
    return {rule.name: rule for rule in filled}


def rows(*sizes: int) -> Split:
    """Cuts along the first dimension into parts of ``sizes`` rows."""

    def split(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
        import torch

        parts: Sequence[torch.Tensor] = torch.functional.split(tensor, list(sizes))
        return parts

    return split


def grouped_rows(groups: int, queries: int, head_dim: int) -> Split:
    """Queries, keys and values of rows that hold, group by group, some query heads, a key and a value head.

    Args:
        groups: Key-value heads.
        queries: Query heads of each of them.
        head_dim: Rows of a head.
    """

    def split(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
        heads = tensor.reshape(groups, queries + 2, head_dim, *tensor.shape[1:])
        parts = (heads[:, :queries], heads[:, queries], heads[:, queries + 1])
        return [part.reshape(-1, *tensor.shape[1:]) for part in parts]

    return split


def unit_rows(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """Rows of length 1, computed in 32 bit: what a head that normalises its weight amounts to."""
    from torch.nn import functional

    return (functional.normalize(tensor.float()).to(tensor.dtype),)
