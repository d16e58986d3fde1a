"""One file of named tensors, read one at a time: safetensors, or what torch.save wrote."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mftrun.errors import DataError

Read = Callable[[str], Tensor]
"""Gives the tensor of a name."""

Positions = Callable[[int], Tensor]
"""How many values a tensor has → indices of some of them, int64."""

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

    def outline(self) -> Tensor:
        """A tensor like it without numbers, on the meta device."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


class TensorFile(Protocol):
    """A file of named tensors."""

    def kinds(self) -> Mapping[str, Kind]:
        """Every tensor's shape and dtype.

        Raises:
            DataError: The file is damaged.
        """
        ...

    def read(self, name: str) -> Tensor:
        """One tensor, in CPU memory.

        Raises:
            DataError: The file is damaged.
        """
        ...

    def picked(self, positions: Positions) -> Mapping[str, Tensor]:
        """Some values of every tensor, one-dimensional, by its name; no more of the file is asked for.

        Raises:
            DataError: The file is damaged.
        """
        ...


def tensor_file(path: Path) -> TensorFile:
    """The reader of a file, by its ending."""
    return _Safetensors(path) if path.suffix == ".safetensors" else _Pickled(path)


@dataclass(frozen=True)
class _Safetensors:
    path: Path

    def kinds(self) -> Mapping[str, Kind]:
        with _checked(self.path), safe_open(self.path, "pt") as found:
            slices = {name: found.get_slice(name) for name in found.keys()}  # noqa: SIM118 - it is no mapping
            return {name: Kind(tuple(one.get_shape()), self._dtype(one)) for name, one in slices.items()}

    def read(self, name: str) -> Tensor:
        with _checked(self.path), safe_open(self.path, "pt") as found:
            tensor: Tensor = found.get_tensor(name)
        return tensor

    def picked(self, positions: Positions) -> Mapping[str, Tensor]:
        with _checked(self.path), safe_open(self.path, "pt") as found:  # tensors are views of the mapped file
            return {name: _pick(found.get_tensor(name), positions) for name in found.keys()}  # noqa: SIM118

    def _dtype(self, one: object) -> torch.dtype:
        name = one.get_dtype()  # type: ignore[attr-defined]
        if name not in _DTYPES:
            raise DataError(self.path, 0, f"holds values of the type {name}; give the model in 16 or 32 bit")
        return _DTYPES[name]


@dataclass(frozen=True)
class _Pickled:
    """Read through a map of the file into memory, so that only what is asked for is loaded."""

    path: Path

    def kinds(self) -> Mapping[str, Kind]:
        return {name: Kind(tuple(one.shape), one.dtype) for name, one in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        return self._tensors[name].clone()

    def picked(self, positions: Positions) -> Mapping[str, Tensor]:
        return {name: _pick(one, positions) for name, one in self._tensors.items()}

    @cached_property
    def _tensors(self) -> Mapping[str, Tensor]:
        """Files of torch before 1.6 cannot be mapped: they are in memory as a whole."""
        with _checked(self.path, " as weights alone"):
            mapped = zipfile.is_zipfile(self.path)
            found = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mapped)
        if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
            raise DataError(
                self.path, 0, "holds more than tensors by name; give a checkpoint that save_pretrained wrote"
            )
        return found


def _pick(tensor: Tensor, positions: Positions) -> Tensor:
    return tensor.flatten()[positions(tensor.numel())]


@contextmanager
def _checked(path: Path, how: str = "") -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise DataError(path, 0, f"cannot be read{how}: {error}; get the file again") from error
