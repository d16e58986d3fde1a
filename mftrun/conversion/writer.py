"""Writing weights as safetensors, shard by shard, as transformers reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mftrun.files import write_json

if TYPE_CHECKING:
    import torch


@dataclass
class ShardWriter:
    """Gathers tensors until a shard is full; never more than one shard is in memory.

    Args:
        folder: Where the files go.
        limit: Bytes of a shard; a tensor that is larger has a shard of its own.
    """

    folder: Path
    limit: int
    written: int = field(default=0, init=False)
    _pending: dict[str, torch.Tensor] = field(default_factory=dict, init=False)
    _pending_bytes: int = field(default=0, init=False)
    _shards: list[list[str]] = field(default_factory=list, init=False)

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Takes a tensor that shares its memory with no other one."""
        if self._pending and self._pending_bytes + tensor.nbytes > self.limit:
            self._flush()
        self._pending[name] = tensor
        self._pending_bytes += tensor.nbytes

    def finish(self) -> None:
        """Writes what is left, names the files, and writes the index if there are several."""
        if self._pending:
            self._flush()
        count = len(self._shards)
        names = [f"model-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
        if count == 1:
            names = ["model.safetensors"]
        for number, name in enumerate(names):
            self._unnamed(number).rename(self.folder / name)
        if count > 1:
            places = {
                tensor: name for name, shard in zip(names, self._shards, strict=True) for tensor in shard
            }
            index = {"metadata": {"total_size": self.written}, "weight_map": places}
            write_json(self.folder / "model.safetensors.index.json", index)

    def _flush(self) -> None:
        from safetensors.torch import save_file

        save_file(self._pending, self._unnamed(len(self._shards)), metadata={"format": "pt"})
        self.written += self._pending_bytes
        self._shards.append(list(self._pending))
        self._pending, self._pending_bytes = {}, 0

    def _unnamed(self, number: int) -> Path:
        """How many shards there will be is known at the end alone."""
        return self.folder / f"shard-{number:05d}.safetensors"
