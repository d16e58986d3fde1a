"""Weights as safetensors of a limited size, written one file after the other."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file

from mftrun.errors import ConfigError
from mftrun.files import write_json
from mftrun.merging.checkpoint import Kind, Read

log = logging.getLogger(__name__)


def write_shards(folder: Path, kinds: Mapping[str, Kind], read: Read, shard_size: int) -> int:
    """Writes tensors, with an index where there are several files. In memory: one file's worth.

    Args:
        folder: Exists.
        kinds: What is to be written, in this order.
        read: Gives each tensor, of the shape and dtype announced.
        shard_size: Bytes of a file at most, unless one tensor alone is larger.

    Returns:
        How many files.

    Raises:
        OSError: The folder cannot be written.
    """
    shards = _divided(kinds, shard_size)
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = _file_name(number, len(shards))
        tensors = {name: read(name).to(kinds[name].dtype).clone().contiguous() for name in names}
        for name, tensor in tensors.items():
            assert tuple(tensor.shape) == kinds[name].shape, f"{name}: {tensor.shape}"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
        log.info("wrote %s, %d of %d", file, number, len(shards))
        del tensors
    if len(shards) > 1:
        total = sum(kind.bytes for kind in kinds.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_json(folder / "model.safetensors.index.json", index)
    return len(shards)


def check_space(output: Path, wanted: int) -> None:
    """Refuses a disk that has no room.

    Args:
        output: What is to be written; it need not exist.
        wanted: Bytes.

    Raises:
        ConfigError: There is less.
    """
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < wanted:
        raise ConfigError("output", f"needs {wanted / 1e9:.1f} GB, and {there} has {free / 1e9:.1f} GB left")


def _divided(kinds: Mapping[str, Kind], shard_size: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, kind in kinds.items():
        if shards[-1] and size + kind.bytes > shard_size:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += kind.bytes
    return shards


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
