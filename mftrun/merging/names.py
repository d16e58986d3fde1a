"""What parameters are called in the files: transformers renames some as it loads, and stacks others."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mftrun.weight_files.tensor_file import Read


@dataclass(frozen=True)
class _Source:
    """One tensor in the files that a parameter is made from.

    Attributes:
        name: In the files.
        pattern: Of the converter that takes it; None where it is the parameter itself.
    """

    name: str
    pattern: str | None


@dataclass(frozen=True)
class ParameterNames:
    """Which tensors in the files make up which parameter of the model.

    Attributes:
        model: Without numbers; knows how its family is stored.
        sources: By the parameter's (or buffer's) name.
        converters: Those of transformers, by pattern.
    """

    model: Any
    sources: Mapping[str, list[_Source]]
    converters: Mapping[str, Any]

    @classmethod
    def of(cls, model: Any, stored: Iterable[str]) -> ParameterNames:
        """The names for a model and the names found in its files.

        Args:
            model: A `PreTrainedModel`; its values are not looked at.
            stored: Names in the files.
        """
        renamings, converters = _conversions(model)
        known = model.state_dict()
        found: dict[str, list[_Source]] = {}
        for name in sorted(stored, key=_natural):
            key, pattern = _parameter_of(name, model.base_model_prefix, known, renamings, converters)
            found.setdefault(key, []).append(_Source(name, pattern))
        by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
        return cls(model, {key: found[key] for key in found if key in known}, by_pattern)

    @property
    def parameter_of(self) -> Mapping[str, str]:
        """Name in the files → name of the parameter."""
        return {source.name: key for key, sources in self.sources.items() for source in sources}

    def is_exact(self, key: str) -> bool:
        """Whether a parameter can be made from its files alone, and be put back into them."""
        sources = self.sources.get(key, [])
        patterns = [source.pattern for source in sources if source.pattern is not None]
        if not patterns:
            return len(sources) == 1
        if any(len(self.converters[pattern].target_patterns) > 1 for pattern in patterns):
            return False
        return self._split(key, self.model.state_dict()[key]).keys() == {source.name for source in sources}

    def read(self, key: str, read: Read) -> Tensor:
        """The value of a parameter.

        Args:
            key: Its name in the model; `is_exact`.
            read: Gives a tensor by its name in the files.
        """
        sources = self.sources[key]
        if sources[0].pattern is None:
            return read(sources[0].name)
        converter = copy.deepcopy(self.converters[sources[0].pattern])
        for source in sources:
            converter.add_tensor(key, source.name, source.pattern, read(source.name))
        made = converter.convert(key, model=self.model, config=self.model.config)[key]
        value: Tensor = made[0] if isinstance(made, list) else made
        return value

    def stored(self, key: str, value: Tensor) -> dict[str, Tensor]:
        """The tensors in the files that hold a parameter's value: the inverse of `read`."""
        sources = self.sources[key]
        if sources[0].pattern is None:
            return {sources[0].name: value}
        return self._split(key, value)

    def _split(self, key: str, value: Tensor) -> dict[str, Tensor]:
        from transformers.core_model_loading import revert_weight_conversion

        found: dict[str, Tensor] = revert_weight_conversion(self.model, {key: value})
        return found


def _conversions(model: Any) -> tuple[list[Any], list[Any]]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming

    found = get_model_conversion_mapping(model)
    renamings = [one for one in found if isinstance(one, WeightRenaming)]
    return renamings, [one for one in found if isinstance(one, WeightConverter)]


def _parameter_of(
    name: str, prefix: str, known: Mapping[str, Tensor], renamings: list[Any], converters: list[Any]
) -> tuple[str, str | None]:
    """As transformers does while it loads: renamed, unless the name is right as it stands."""
    from transformers.core_model_loading import rename_source_key

    key, pattern = rename_source_key(name, renamings, converters, prefix, known)
    if key not in known and name in known:
        key, pattern = rename_source_key(name, [], [], prefix, known)
    return key, pattern


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers by their value: experts are stacked in this order."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
