"""Reading a checkpoint tensor by tensor: safetensors or torch files, one or many."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

_LAYOUTS = (
    ("model.safetensors.index.json", "model*.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model*.bin"),
)


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a checkpoint.

    Args:
        files: In the order they are read.
        tensors: Each tensor without its numbers (on the meta device), by its name.
    """

    files: tuple[Path, ...]
    tensors: Mapping[str, torch.Tensor]

    def read(self, file: Path) -> Iterator[tuple[str, torch.Tensor]]:
        """Gives the tensors of a file one at a time; those of a torch file stay on disk until they are used.

        Raises:
            DataError: The file is broken.
        """
        yield from _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Looks at the weights of ``folder`` without reading them.

    Raises:
        ConfigError: There are none, files are missing, or a tensor is there twice or holds no floating-point
            numbers.
        DataError: A file is broken.
    """
    files, promised = _files(folder)
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        for name, tensor in _shapes(file):
            if name in tensors:
                raise ConfigError("source", f"holds the tensor {name} twice, the second time in {file.name}")
            if not tensor.is_floating_point():
                raise ConfigError(
                    "source",
                    f"its tensor {name} is {tensor.dtype}: the weights are quantised; give the ones in 16 or "
                    "32 bit",
                )
            tensors[name] = tensor
    if absent := sorted(promised - tensors.keys()):
        raise ConfigError("source", f"its index promises {_some(absent)}, which no file holds")
    return Checkpoint(tuple(files), tensors)


def _files(folder: Path) -> tuple[list[Path], frozenset[str]]:
    """The files, and the tensors that an index promises."""
    for index, pattern in _LAYOUTS:
        if (folder / index).is_file():
            return _indexed(folder, folder / index)
        if found := sorted(folder.glob(pattern)):
            return _unindexed(found), frozenset()
    patterns = " or ".join(pattern for _, pattern in _LAYOUTS)
    raise ConfigError("source", f"{folder} holds no weights ({patterns})")


def _indexed(folder: Path, index: Path) -> tuple[list[Path], frozenset[str]]:
    try:
        places: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(index, 0, "is no index of weights (weight_map)") from error
    names = sorted(set(places.values()))
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise ConfigError("source", f"{folder} lacks {_some(absent)}, which {index.name} names")
    return [folder / name for name in names], frozenset(places)


def _unindexed(files: list[Path]) -> list[Path]:
    """One file alone is all of a model; several of them need their index, or some may be absent unseen."""
    if len(files) > 1:
        names = _some([file.name for file in files])
        raise ConfigError(
            "source", f"holds {names}, and no index (*.index.json) that says what belongs to it"
        )
    return files


def _shapes(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if file.suffix != ".safetensors":
        for name, tensor in _read_torch(file):
            yield name, torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        return
    for name, entry in _header(file).items():
        dtype = _dtypes().get(entry["dtype"], torch.int8)
        yield name, torch.empty(entry["shape"], dtype=dtype, device="meta")


def _header(file: Path) -> dict[str, Any]:
    """Names, dtypes and shapes: JSON behind the eight bytes that tell its length."""
    try:
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        return {name: entry for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, AttributeError, OverflowError, MemoryError) as error:
        raise DataError(file, 0, "is no safetensors file, or ends too early") from error


def _dtypes() -> dict[str, torch.dtype]:
    import torch

    return {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def _read_safetensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as stream:
            for name in stream.keys():  # noqa: SIM118 - it is no mapping
                yield name, stream.get_tensor(name)
    except SafetensorError as error:
        raise DataError(file, 0, f"cannot be read: {error}") from error


def _read_torch(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    loaded = _load(file)
    for name in list(loaded):
        yield name, loaded.pop(name)


def _load(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a torch file, mapped from disk; files of torch before 1.6 cannot be, and are read whole."""
    import zipfile

    import torch

    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (RuntimeError, EOFError, UnpicklingError, ValueError, OSError) as error:
        raise DataError(file, 0, f"cannot be read as weights alone: {error}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise DataError(
            file, 0, "holds more than tensors by name; give a checkpoint that save_pretrained wrote"
        )
    return dict(loaded)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
