"""The values of parameters: of the base as it computes, and with an adapter merged into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from mftrun.errors import ConfigError
from mftrun.merging.adapter import SavedAdapter
from mftrun.merging.base import BaseModel
from mftrun.merging.ends import tied_ends
from mftrun.merging.factors import LowRankLayer, Placement, bare
from mftrun.merging.quantized import RoundTrip, quantized_weights

_KEPT = ".modules_to_save.default."
_FIRST = ".original_module."


@dataclass(frozen=True)
class BaseValues:
    """The base's parameters, read one by one.

    Args:
        base: The model's folder.
        round_trip: What quantising does to the weights it is done to; None leaves them as in the files.
    """

    base: BaseModel
    round_trip: RoundTrip | None = None

    @property
    def changed(self) -> frozenset[str]:
        """Parameters that differ from the files."""
        return frozenset() if self.round_trip is None else frozenset(self._quantized)

    def read(self, key: str) -> Tensor:
        """A parameter, or persistent buffer, by its name in the model; tied ones under either name."""
        names, checkpoint = self.base.names, self.base.checkpoint
        value = names.read(key if key in names.sources else self._partner(key), checkpoint.read)
        if self.round_trip is None or key not in self._quantized:
            return value
        return self.round_trip(value.T).T.contiguous() if self._quantized[key] else self.round_trip(value)

    def check(self) -> None:
        """Refuses a base that lacks weights.

        Raises:
            ConfigError: They would stay random.
        """
        model, sources = self.base.names.model, self.base.names.sources
        missing = [
            name for name, _ in model.named_parameters() if not {name, self._partner(name)} & set(sources)
        ]
        if missing:
            raise ConfigError("job.base", f"{self.base.folder} lacks weights, such as {missing[0]}")

    def _partner(self, key: str) -> str:
        ends = tied_ends(self.base.names.model)
        return ends[1 - ends.index(key)] if ends is not None and key in ends else key

    @cached_property
    def _quantized(self) -> Mapping[str, bool]:
        return quantized_weights(self.base.names.model)


@dataclass(frozen=True)
class MergedValues:
    """The parameters of a base with an adapter, apart or merged. In memory: the layer at hand, in 32 bit.

    Args:
        base: The base's parameters.
        adapter: The adapter's tensors.
        placement: Where they go.
    """

    base: BaseValues
    adapter: SavedAdapter
    placement: Placement
    _layers: dict[str, LowRankLayer] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._layers.update({key: one for one in self.placement.layers for key in one.keys})

    @property
    def changed(self) -> frozenset[str]:
        """Parameters that differ from the base's files."""
        return frozenset({*self._layers, *self.placement.whole, *self.base.changed})

    def merged(self, key: str) -> Tensor:
        """A parameter with the adapter in it, by the base's name; 32 bit where it was computed.

        Raises:
            ConfigError: The adapter holds values that are not finite.
        """
        layer = self._layers.get(key)
        return self._unmerged(key) if layer is None else self._with_factors(layer)[key]

    def adapted(self, name: str) -> Tensor:
        """A parameter of the `PeftModel`, by its name there."""
        for one in self.placement.layers:
            if name.startswith(f"{one.path}.") and (own := name.removeprefix(f"{one.path}.")) in one.factors:
                return self.adapter.read(one.factors[own])
        if _FIRST in name:
            return self.base.read(bare(name.replace(_FIRST, ".")))
        return self._unmerged(bare(name.replace(_KEPT, ".")))

    def _unmerged(self, key: str) -> Tensor:
        saved = self.placement.whole.get(key)
        return self.base.read(key) if saved is None else self.adapter.read(saved)

    def _with_factors(self, one: LowRankLayer) -> dict[str, Tensor]:
        """Lets peft do the arithmetic of its layer, on the values of this layer alone."""
        owner = one.layer.get_base_layer()
        values = {name: self._unmerged(f"{one.owner}.{name}") for name in one.changes}
        factors = {name: self.adapter.read(saved) for name, saved in one.factors.items()}
        with _filled(owner, values), _filled(one.layer, factors):
            try:
                one.layer.merge(safe_merge=True)
            except ValueError as error:
                raise ConfigError("adapter", f"{one.path}: {error}") from error
            one.layer.merged_adapters.clear()
            return {f"{one.owner}.{name}": owner.get_parameter(name).data for name in one.changes}


@contextmanager
def _filled(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Gives parameters values in 32 bit, and takes them away again."""
    empty = {name: module.get_parameter(name) for name in values}
    fill(module, values)
    try:
        yield
    finally:
        for name, parameter in empty.items():
            _put(module, name, parameter)


def fill(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Gives parameters values, in 32 bit.

    Args:
        module: Holds them, at any depth.
        values: By their names.
    """
    for name, value in values.items():
        _put(module, name, nn.Parameter(value.to(torch.float32), requires_grad=False))


def _put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, last = name.rpartition(".")
    module.get_submodule(path).register_parameter(last, parameter)
