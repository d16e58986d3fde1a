"""What tells one model's weights from another's: a few values of every tensor, read from the files."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mftrun.files import write_json
from mftrun.weight_files.checkpoint import Checkpoint, some

_FORMAT = 1
# Values that lie side by side cost one read; places that are far apart show what changed in part of a tensor.
_RUN = 8
_PLACES = range(2, 9)
_ALL_PLACES = 1024
_GOLDEN, _WORD = 0x9E3779B97F4A7C15, 64
# What config.json says about the writer, not about the model.
_UNIMPORTANT = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"})


@dataclass(frozen=True)
class TensorPrint:
    """What is kept of a tensor.

    Attributes:
        shape: Its sizes.
        dtype: Of its values, as torch names it.
        values: Some of them, as float32 of little endian.
    """

    shape: tuple[int, ...]
    dtype: str
    values: bytes

    @classmethod
    def of(cls, tensor: Tensor, picked: Tensor) -> TensorPrint:
        """That of a tensor, of which some values were picked."""
        values = picked.float().numpy().astype("<f4").tobytes()
        return cls(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), values)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> TensorPrint:
        """From what `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
        """
        if not isinstance(getattr(torch, stored["dtype"], None), torch.dtype):
            raise ValueError(f"{stored['dtype']!r} is no dtype")
        return cls(tuple(stored["shape"]), stored["dtype"], base64.b64decode(stored["values"], validate=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = base64.b64encode(self.values).decode()
        return {"shape": list(self.shape), "dtype": self.dtype, "values": values}

    def matches(self, other: TensorPrint) -> bool:
        """Whether both are the same numbers, or one is the other converted to its dtype."""
        if self.shape != other.shape:
            return False
        return other.values in (self.values, self._as(other.dtype)) or self.values == other._as(self.dtype)

    def _as(self, dtype: str) -> bytes:
        values = (
            torch.frombuffer(bytearray(self.values), dtype=torch.float32) if self.values else torch.empty(0)
        )
        return values.to(getattr(torch, dtype)).float().numpy().astype("<f4").tobytes()


@dataclass(frozen=True)
class Fingerprint:
    """What tells a model in a folder from others of its shape.

    A sample of every tensor: 16 to 64 values, at places that depend on the tensor's size alone. Another
    model, or the same one trained further, differs in many of them.

    Args:
        settings: Contents of its config.json, without what is not about the model.
        tensors: What is kept of each tensor, by its name in the files.
        places: In each tensor.
    """

    settings: Mapping[str, Any]
    tensors: Mapping[str, TensorPrint]
    places: int

    @classmethod
    def of(cls, folder: Path, places: int | None = None) -> Fingerprint:
        """That of a model's folder. Of the weights only the sample is asked for; the disk may read ahead.

        Args:
            folder: Holds config.json and the weights.
            places: Of another fingerprint, to compare with it; None chooses by the number of tensors.

        Raises:
            DataError: Its weights are missing or damaged.
            OSError: config.json is missing or cannot be read.
            ValueError: It is not JSON.
        """
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        checkpoint = Checkpoint(folder)
        outlines = checkpoint.outlines
        if places is None:
            places = min(max(_ALL_PLACES // max(len(outlines), 1), _PLACES[0]), _PLACES[-1])
        count = places  # for the closure, which sees no None
        picked = checkpoint.picked(lambda size: sampled(size, count))
        tensors = {name: TensorPrint.of(outlines[name], picked[name]) for name in outlines}
        return cls(_important(settings), tensors, places)

    @classmethod
    def read(cls, file: Path) -> Fingerprint:
        """From a file that `write` wrote.

        Raises:
            OSError: It cannot be read.
            ValueError: It holds something else.
        """
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            if stored["format"] != _FORMAT:
                raise ValueError(f"its format is {stored['format']}, and this version knows {_FORMAT}")
            tensors = {name: TensorPrint.from_dict(one) for name, one in stored["tensors"].items()}
            return cls(dict(stored["config"]), tensors, int(stored["places"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is no fingerprint ({error!r})") from error

    def write(self, file: Path) -> None:
        """Writes it as JSON, whole or not at all.

        Raises:
            OSError: The disk is full or fails.
        """
        tensors = {name: one.to_dict() for name, one in self.tensors.items()}
        write_json(
            file,
            {"format": _FORMAT, "places": self.places, "config": dict(self.settings), "tensors": tensors},
        )

    def difference(self, other: Fingerprint) -> str | None:
        """How another model differs from this one, in words; None where it is the same one.

        A copy in another dtype is the same one, and so is one that stores tied weights twice.

        Args:
            other: With as many places.
        """
        ours, theirs = _completed(self.settings), _completed(other.settings)
        keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if keys:
            return f"config.json differs in {some(keys)}"
        names = self.tensors.keys() & other.tensors.keys()
        alone = sorted([*_alone(self.tensors, names), *_alone(other.tensors, names)])
        if alone:
            return f"only one of them has {some(alone)}"
        changed = sorted(name for name in names if not self.tensors[name].matches(other.tensors[name]))
        if changed:
            return f"{len(changed)} of {len(names)} tensors differ: {some(changed)}"
        return None


def sampled(size: int, places: int) -> Tensor:
    """Which values of a tensor are looked at: a few side by side, at places spread over all of it.

    Args:
        size: How many it has.
        places: How many there are.

    Returns:
        Indices into the flattened tensor, int64 [at most 8 · places]; all of them in a small tensor.
    """
    if size <= places * _RUN:
        return torch.arange(size)
    # Multiples of the golden ratio: far from each other, and in step with no row length.
    fractions = [place * _GOLDEN % 2**_WORD for place in range(1, places + 1)]
    starts = torch.tensor([fraction * (size - _RUN + 1) >> _WORD for fraction in fractions])
    return (starts[:, None] + torch.arange(_RUN)).flatten()


def _alone(tensors: Mapping[str, TensorPrint], names: Collection[str]) -> list[str]:
    """Those that the other model lacks, but for copies of what it has: tied weights may be stored twice."""
    shared = {tensors[name] for name in names}
    return [name for name in tensors if name not in names and tensors[name] not in shared]


def _completed(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the defaults of keys left out, as versions of transformers write different ones."""
    from transformers import AutoConfig

    try:
        return _important(AutoConfig.for_model(**copy.deepcopy(dict(settings))).to_dict())
    except Exception:  # code that came with a model may know the architecture; as it is in the file, then
        return settings


def _important(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _UNIMPORTANT}
