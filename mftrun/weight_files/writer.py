"""Writing weights as safetensors, file by file, as transformers reads them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mftrun.files import write_json

log = logging.getLogger(__name__)


@dataclass
class ShardWriter:
    """Gathers tensors until a file is full; never more than one file is in memory.

    Args:
        folder: Where the files go.
        limit: Bytes of a file; a tensor that is larger has a file of its own.
    """

    folder: Path
    limit: int
    written: int = field(default=0, init=False)
    _pending: dict[str, Tensor] = field(default_factory=dict, init=False)
    _pending_bytes: int = field(default=0, init=False)
    _shards: list[list[str]] = field(default_factory=list, init=False)

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes a contiguous tensor that shares its memory with no other one.

        Raises:
            OSError: A file that was full cannot be written.
        """
        self.make_room(tensor.nbytes)
        self._pending[name] = tensor
        self._pending_bytes += tensor.nbytes

    def make_room(self, size: int) -> None:
        """Writes what waits, if a tensor of so many bytes does not go into the same file.

        Raises:
            OSError: It cannot be written.
        """
        if self._pending and self._pending_bytes + size > self.limit:
            self._flush()

    def finish(self) -> None:
        """Writes what is left, names the files, and writes the index if there are several.

        Raises:
            OSError: They cannot be written.
        """
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
        try:
            save_file(self._pending, self._unnamed(len(self._shards)), metadata={"format": "pt"})
        except SafetensorError as error:  # it has no OSError of its own, a full disk included
            raise OSError(str(error)) from error
        self.written += self._pending_bytes
        self._shards.append(list(self._pending))
        self._pending, self._pending_bytes = {}, 0
        log.info("weights written: %d files, %.2f GB", len(self._shards), self.written / 1e9)

    def _unnamed(self, number: int) -> Path:
        """How many files there will be is known at the end alone."""
        return self.folder / f"shard-{number:05d}.safetensors"
