"""The samples a run trains on: which of the token files' samples, how much of each, under which task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mftrun.data.rows import offsets, ranges
from mftrun.data.sample import Origin
from mftrun.data.token_file import TokenFile, read_meta
from mftrun.errors import DataError
from mftrun.files import whole_folder, write_json

_VERSION = 1
_META = "meta.json"
COLUMNS: Mapping[str, str] = {
    "task": "<i4",
    "source": "<i4",
    "first": "<i8",
    "lengths": "<i8",
    "target_weights": "<f8",
    "span_ptr": "<i8",
    "span_start": "<i4",
    "span_length": "<i4",
    "span_weight": "<f4",
    "origin_file": "<i4",
    "origin_line": "<i8",
}


@dataclass(frozen=True, eq=False)
class SampleTable:
    """S samples with P spans of targets, in memory-mapped arrays; their tokens stay in the token files.

    Attributes:
        directory: The folder the arrays are mapped from.
        tasks: Task names; `task` indexes them.
        files: Origin files; `origin_file` indexes them.
        sources: Token files; `source` indexes them.
        fingerprint: What the table was made from, as given to `write_table`.
        task: int32[S].
        source: int32[S].
        first: int64[S], place of the sample's first token in its token file, in units of int32.
        lengths: int64[S], tokens of each sample as it is trained, after any cut.
        target_weights: float64[S], summed weight of each sample's targets.
        span_ptr: int64[S + 1]; the targets of sample s are spans ``span_ptr[s]:span_ptr[s + 1]``.
        span_start: int32[P], from the sample's first token; never 0, as nothing would predict it.
        span_length: int32[P].
        span_weight: float32[P], how many times each token of the span counts.
        origin_file: int32[S].
        origin_line: int64[S], from 1; 0 when made.
    """

    directory: Path
    tasks: list[str]
    files: list[str]
    sources: list[Path]
    fingerprint: str
    task: npt.NDArray[np.int32]
    source: npt.NDArray[np.int32]
    first: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    target_weights: npt.NDArray[np.float64]
    span_ptr: npt.NDArray[np.int64]
    span_start: npt.NDArray[np.int32]
    span_length: npt.NDArray[np.int32]
    span_weight: npt.NDArray[np.float32]
    origin_file: npt.NDArray[np.int32]
    origin_line: npt.NDArray[np.int64]

    @property
    def num_samples(self) -> int:
        """Number of samples S."""
        return len(self.task)

    def read(
        self, sample: npt.NDArray[np.int64], start: npt.NDArray[np.int64], size: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int32]:
        """Returns the tokens of G pieces of samples, one after the other.

        Args:
            sample: int64[G].
            start: int64[G], first token of each piece, from the start of its sample.
            size: int64[G], tokens of each piece.

        Returns:
            int32[sum(size)].
        """
        source, begin, into = self.source[sample], self.first[sample] + start, offsets(size)
        out = np.empty(into[-1], np.int32)
        for number in np.unique(source):  # about as many as there are tasks
            mine = np.flatnonzero(source == number)
            there = ranges(begin[mine], size[mine])
            out[ranges(into[mine], size[mine])] = self._values[number][there]
        return out

    def origin(self, sample: int) -> Origin:
        """The file and line that sample ``sample`` came from."""
        return Origin(self.files[self.origin_file[sample]], int(self.origin_line[sample]))

    @cached_property
    def _values(self) -> list[npt.NDArray[np.int32]]:
        return [_mapped(path) for path in self.sources]

    @classmethod
    def open(cls, directory: Path) -> SampleTable:
        """Maps a table into memory, read-only.

        Raises:
            DataError: No table is there, or one of its files, or a token file, is missing or cut short.
        """
        meta = _read_meta(directory)
        arrays = {name: _load(directory, name, meta["bytes"]) for name in COLUMNS}
        sources = [_checked(Path(path), size, content) for path, size, content in meta["sources"]]
        assert arrays["source"].max(initial=-1) < len(sources), "every sample is in one of the token files"
        return cls(directory, meta["tasks"], meta["files"], sources, meta["fingerprint"], **arrays)


def write_table(
    directory: Path,
    columns: Mapping[str, npt.NDArray[Any]],
    *,
    tasks: Sequence[str],
    files: Sequence[str],
    sources: Sequence[TokenFile],
    fingerprint: str,
) -> None:
    """Writes a table; the folder appears whole or not at all and replaces an older one.

    Args:
        directory: The folder to create.
        columns: The arrays of `SampleTable`, by name.
        tasks: Task names.
        files: Origin files.
        sources: Token files.
        fingerprint: A digest of what the table was made from.

    Raises:
        DataError: The folder cannot be written (read-only, disk full).
    """
    try:
        with whole_folder(directory) as scratch:
            for name, dtype in COLUMNS.items():
                np.save(_array_path(scratch, name), columns[name].astype(dtype, copy=False))
            meta = {
                "version": _VERSION,
                "tasks": list(tasks),
                "files": list(files),
                "sources": [_described(file) for file in sources],
                "fingerprint": fingerprint,
                "bytes": {name: _array_path(scratch, name).stat().st_size for name in COLUMNS},
            }
            write_json(scratch / _META, meta)
    except OSError as error:
        message = f"cannot be written: {error.strerror}; free some space or change output_dir"
        raise DataError(directory, 0, message) from error


def _described(file: TokenFile) -> list[str | int]:
    return [str(file.path), file.path.stat().st_size, file.meta.content]


def _array_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _mapped(path: Path) -> npt.NDArray[np.int32]:
    whole = path.stat().st_size // 4
    return np.memmap(path, dtype="<i4", mode="r", shape=(whole,)) if whole else np.zeros(0, np.int32)


def _checked(path: Path, size: int, content: str) -> Path:
    """A token file that is whole, and that of old: its folder may have been made anew since."""
    found = path.stat().st_size if path.is_file() else 0
    if found != size:
        what = f"holds {found:,} of {size:,} bytes" if path.is_file() else "is gone"
        raise DataError(path, 0, f"these tokens of the run {what}; start it again to tokenize anew")
    if read_meta(path.parent).content != content:
        raise DataError(path, 0, "these tokens have been replaced by others since the run was started")
    return path


def _read_meta(directory: Path) -> Mapping[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((directory / _META).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"no readable table of samples here ({error}); prepare the data again"
        raise DataError(directory, 0, message) from error
    if meta.get("version") != _VERSION:
        message = f"table of version {meta.get('version')}, not {_VERSION}; prepare the data again"
        raise DataError(directory, 0, message)
    return meta


def _load(directory: Path, name: str, sizes: Mapping[str, int]) -> npt.NDArray[Any]:
    path = _array_path(directory, name)
    found = path.stat().st_size if path.exists() else 0
    if found != sizes[name]:
        message = f"cut short: {found} of {sizes[name]} bytes; delete {directory} and prepare the data again"
        raise DataError(path, 0, message)
    mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r" if found > _HEADER else None)
    return mapped


_HEADER = 128  # bytes of an .npy file without an entry, which cannot be mapped
