"""Merging tensor by tensor: the base is read, changed and written without ever being in memory as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mftrun.files import write_json
from mftrun.merging.ends import ends_of, tied_ends
from mftrun.merging.values import MergedValues
from mftrun.merging.verify import Pair, logits
from mftrun.weight_files.tensor_file import Kind, Read
from mftrun.weight_files.writer import ShardWriter

# Experts of a layer lie in two parameters, each in many tensors that alternate in the files.
_KEPT_IN_MEMORY = 2


@dataclass(frozen=True)
class StreamedMerge:
    """What is written of a base with an adapter merged into it.

    Args:
        values: Of the parameters.
        dtype: Of the weights; None leaves each as the base has it.
    """

    values: MergedValues
    dtype: torch.dtype | None

    @cached_property
    def unties(self) -> bool:
        """Whether token embeddings and output head were one weight, and the adapter makes them differ."""
        ends = tied_ends(self._names.model)
        if ends is None or not set(ends) & self.values.changed:
            return False
        first, second = map(self.values.merged, ends)
        return not torch.equal(first, second)

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """Shape and dtype of what is written, by the names in the files."""
        checkpoint = self.values.base.base.checkpoint
        written = {name: self._kind(name, kind) for name, kind in checkpoint.kinds.items()}
        ends = tied_ends(self._names.model)
        if ends is None:
            return written
        sources = self._names.sources
        places = [sources[key][0].name for key in ends if key in sources]
        if not self.unties:  # one of them is enough
            return {name: kind for name, kind in written.items() if name not in places[1:]}
        # The head gets a place of its own, under the name that the model has for it.
        return written if len(places) > 1 else {**written, self._added: written[places[0]]}

    @property
    def entries(self) -> int | None:
        """Rows of the embeddings, where the adapter brings its own; None as the base has."""
        return self.values.placement.entries

    def before(self, ids: Tensor) -> Pair:
        """Logits of the base alone and with its adapter, float32 [tokens, entries] each.

        Args:
            ids: int64 [tokens].
        """
        base = self.values.base
        known = ids.clamp(max=base.base.rows - 1)
        alone = logits(base.base.skeleton(), base.read, known)
        return alone, logits(self.values.placement.model, self.values.adapted, ids)

    def write(self, folder: Path, shard_size: int) -> None:
        """Writes weights and config.json. In memory: one file's worth, and the layer at hand in 32 bit.

        Args:
            folder: Exists.
            shard_size: Bytes of a file.

        Raises:
            OSError: The folder cannot be written.
        """
        read, writer = self._reader(), ShardWriter(folder, shard_size)
        for name, kind in self.kinds.items():
            writer.make_room(kind.bytes)
            tensor = read(name).to(kind.dtype).clone().contiguous()
            assert tuple(tensor.shape) == kind.shape, f"{name}: {tensor.shape}"
            writer.add(name, tensor)
        writer.finish()
        write_json(folder / "config.json", self.settings())

    def settings(self) -> dict[str, Any]:
        """Contents of config.json."""
        found = dict(self.values.base.base.settings)
        changes: dict[str, Any] = {} if self.entries is None else {"vocab_size": self.entries}
        if self.unties:
            changes["tie_word_embeddings"] = False
        # Models of several modalities nest what is said of their language part.
        text = found.get("text_config")
        if isinstance(text, dict):
            found["text_config"] = {**text, **{key: changes[key] for key in changes if key in text}}
        found |= {key: changes[key] for key in changes if key in found or not isinstance(text, dict)}
        if self.unties:
            found["tie_word_embeddings"] = False
        return found if self.dtype is None else with_dtype(found, self.dtype)

    @property
    def _names(self) -> Any:
        return self.values.base.base.names

    @property
    def _added(self) -> str:
        ends = ends_of(self._names.model)
        return next(key for key in ends if key not in self._names.sources)

    def _kind(self, name: str, kind: Kind) -> Kind:
        """Embeddings may have grown; the dtype is that asked for."""
        key = self._names.parameter_of.get(name)
        if self.entries is not None and key is not None and self._of_entries(key):
            kind = replace(kind, shape=(self.entries, *kind.shape[1:]))
        if self.dtype is None or not kind.dtype.is_floating_point or self._stays(key or name):
            return kind
        return replace(kind, dtype=self.dtype)

    def _of_entries(self, key: str) -> bool:
        ends = ends_of(self._names.model)
        return key in (*ends, ends[1].removesuffix("weight") + "bias")

    def _stays(self, key: str) -> bool:
        """Some families keep some parameters in 32 bit, however the others are held."""
        model = self._names.model
        kept = [*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())]
        return any(part in kept for part in key.split("."))

    def _reader(self) -> Read:
        checkpoint, parameter_of = self.values.base.base.checkpoint, self._names.parameter_of

        @lru_cache(maxsize=_KEPT_IN_MEMORY)
        def stored(key: str) -> dict[str, Tensor]:
            value = self.values.merged(key)
            found: dict[str, Tensor] = self._names.stored(key, value)
            return found

        def read(name: str) -> Tensor:
            key = parameter_of.get(name)
            if key is None:
                return self.values.merged(name) if name not in checkpoint.kinds else checkpoint.read(name)
            return stored(key)[name] if key in self.values.changed else checkpoint.read(name)

        return read


def with_dtype(settings: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Contents of config.json for weights of another dtype, under the key that is there."""
    key = "torch_dtype" if "torch_dtype" in settings else "dtype"
    return {**settings, key: str(dtype).removeprefix("torch.")}
