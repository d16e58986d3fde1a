"""Tensors in files, read one at a time: safetensors, or what torch.save wrote."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mftrun.errors import DataError

Read = Callable[[str], Tensor]
"""Gives the tensor of a name."""

_DTYPES = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)
_STEMS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Kind:
    """What is known of a tensor without reading it.

    Attributes:
        shape: Its sizes.
        dtype: Of its values.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Bytes of its values."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class TensorFile(Protocol):
    """A file of named tensors."""

    def kinds(self) -> Mapping[str, Kind]:
        """Every tensor's shape and dtype."""
        ...

    def read(self, name: str) -> Tensor:
        """One tensor, in CPU memory."""
        ...


@dataclass(frozen=True)
class _Safetensors:
    path: Path

    def kinds(self) -> Mapping[str, Kind]:
        with safe_open(self.path, "pt") as found:
            slices = {name: found.get_slice(name) for name in found.keys()}  # noqa: SIM118
            return {
                name: Kind(tuple(one.get_shape()), _DTYPES[one.get_dtype()]) for name, one in slices.items()
            }

    def read(self, name: str) -> Tensor:
        with safe_open(self.path, "pt") as found:
            tensor: Tensor = found.get_tensor(name)
        return tensor


@dataclass(frozen=True)
class _Pickled:
    """Read through a map of the file into memory, so that only what is asked for is loaded."""

    path: Path

    def kinds(self) -> Mapping[str, Kind]:
        return {name: Kind(tuple(one.shape), one.dtype) for name, one in _unpickled(self.path).items()}

    def read(self, name: str) -> Tensor:
        return _unpickled(self.path)[name].clone()


@lru_cache(maxsize=1)
def _unpickled(path: Path) -> Mapping[str, Tensor]:
    options: Mapping[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        found = torch.load(path, mmap=True, **options)
    except RuntimeError:  # a file of the old format cannot be mapped: one whole file in memory at a time
        found = torch.load(path, **options)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def tensor_file(path: Path) -> TensorFile:
    """The reader of a file, by its ending."""
    return _Safetensors(path) if path.suffix == ".safetensors" else _Pickled(path)


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a model's folder.

    Args:
        folder: Holds `model.safetensors` or `pytorch_model.bin`, or several files and their index.
    """

    folder: Path

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """Shape and dtype by name, in the order of the files.

        Raises:
            DataError: A file is missing or damaged.
        """
        return {name: kind for _, kinds in self._contents for name, kind in kinds.items()}

    def read(self, name: str) -> Tensor:
        """One tensor, in CPU memory.

        Raises:
            DataError: Its file is damaged.
        """
        path = self._places[name]
        tensor: Tensor = _checked(path, lambda: tensor_file(path).read(name))
        return tensor

    @property
    def bytes(self) -> int:
        """Bytes of all values."""
        return sum(kind.bytes for kind in self.kinds.values())

    @cached_property
    def _places(self) -> Mapping[str, Path]:
        return {name: path for path, kinds in self._contents for name in kinds}

    @cached_property
    def _contents(self) -> Sequence[tuple[Path, Mapping[str, Kind]]]:
        return [(path, _checked(path, tensor_file(path).kinds)) for path in self._files]

    @cached_property
    def _files(self) -> Sequence[Path]:
        for stem in _STEMS:
            if (path := self.folder / stem).exists():  # before an index, as transformers has it
                return [path]
            if (index := self.folder / f"{stem}.index.json").exists():
                return _indexed(index)
        raise DataError(self.folder, 0, f"holds no weights ({', '.join(_STEMS)} or their index)")


def _indexed(index: Path) -> list[Path]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(index, 0, f"is no index of weights ({error}); get the file again") from error
    files = [index.parent / name for name in dict.fromkeys(names)]
    for path in files:
        if not path.exists():
            raise DataError(path, 0, f"is missing, although {index.name} names it; get the model again")
    return files


def _checked(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, SafetensorError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise DataError(path, 0, f"cannot be read ({error}); get the file again") from error
