"""The weights in a model's folder, read tensor by tensor: one file, or several and their index."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from mftrun.errors import DataError
from mftrun.weight_files.tensor_file import Kind, Positions, TensorFile, tensor_file

# A form's one file comes before its index, and safetensors before torch files, as transformers has it.
_FORMS = (("model.safetensors", "model*.safetensors"), ("pytorch_model.bin", "pytorch_model*.bin"))


@dataclass
class _Opened:
    """The reader of one file at a time: a torch file of the old format is in memory while it is read."""

    path: Path | None = None
    reader: TensorFile | None = None

    def at(self, path: Path) -> TensorFile:
        if self.reader is None or path != self.path:
            self.path, self.reader = path, None  # lets go of the one before
            self.reader = tensor_file(path)
        return self.reader


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a model's folder.

    Args:
        folder: Holds `model.safetensors` or `pytorch_model.bin`, or several files and their index.
    """

    folder: Path
    _opened: _Opened = field(default_factory=_Opened, init=False, repr=False, compare=False)

    @cached_property
    def contents(self) -> Sequence[tuple[Path, Mapping[str, Kind]]]:
        """The files in the order they are read, each with the tensors it holds.

        Raises:
            DataError: There are none, or one is missing or damaged.
        """
        return [(path, tensor_file(path).kinds()) for path in self._files[0]]

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """Shape and dtype by name, in the order of the files.

        Raises:
            DataError: See `contents`.
        """
        return {name: kind for _, kinds in self.contents for name, kind in kinds.items()}

    @property
    def absent(self) -> list[str]:
        """Tensors that an index names and no file holds."""
        return sorted(self._files[1] - self.kinds.keys())

    @property
    def outlines(self) -> dict[str, Tensor]:
        """The tensors without their numbers (on the meta device), by name."""
        return {name: kind.outline() for name, kind in self.kinds.items()}

    def read(self, name: str) -> Tensor:
        """One tensor, in CPU memory.

        Raises:
            DataError: Its file is damaged.
        """
        return self._opened.at(self._places[name]).read(name)

    def picked(self, positions: Positions) -> dict[str, Tensor]:
        """Some values of every tensor, one-dimensional, by its name; no more of the files is asked for.

        Raises:
            DataError: A file is missing or damaged.
        """
        files = (tensor_file(path).picked(positions) for path in self._files[0])
        return {name: values for file in files for name, values in file.items()}

    @cached_property
    def _files(self) -> tuple[list[Path], frozenset[str]]:
        return _files(self.folder)

    @cached_property
    def _places(self) -> Mapping[str, Path]:
        return {name: path for path, kinds in self.contents for name in kinds}


def _files(folder: Path) -> tuple[list[Path], frozenset[str]]:
    """The files, and the tensors that an index promises."""
    for whole, pattern in _FORMS:
        if (folder / whole).is_file():
            return [folder / whole], frozenset()
        if (index := folder / f"{whole}.index.json").is_file():
            return _indexed(index)
        if found := sorted(folder.glob(pattern)):
            return _unindexed(folder, found), frozenset()
    patterns = " or ".join(pattern for _, pattern in _FORMS)
    raise DataError(folder, 0, f"holds no weights ({patterns})")


def _indexed(index: Path) -> tuple[list[Path], frozenset[str]]:
    try:
        places: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = [index.parent / name for name in dict.fromkeys(places.values())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(index, 0, "is no index of weights (weight_map); get the file again") from error
    for path in files:
        if not path.is_file():
            raise DataError(path, 0, f"is missing, although {index.name} names it; get the model again")
    return files, frozenset(places)


def _unindexed(folder: Path, files: list[Path]) -> list[Path]:
    """One file alone is all of a model; several of them need their index, or some may be absent unseen."""
    if len(files) > 1:
        names = some([file.name for file in files])
        message = f"holds {names}, and no index (*.index.json) that says what belongs to it"
        raise DataError(folder, 0, message)
    return files


def some(names: Sequence[str]) -> str:
    """A few names for a message, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
