"""Tokenized samples on disk: a folder of memory-mapped arrays that appears whole or not at all."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mftrun.data.sample import Origin
from mftrun.errors import DataError
from mftrun.files import whole_folder, write_json

_VERSION = 1
_META = "meta.json"
_DTYPES = {
    "tokens": np.dtype("<i4"),
    "targets": np.dtype("?"),
    "offsets": np.dtype("<i8"),
    "target_counts": np.dtype("<i8"),
    "task": np.dtype("<i4"),
    "origin_file": np.dtype("<i4"),
    "origin_line": np.dtype("<i8"),
}
_STREAMED = ("tokens", "targets")


class Entry(NamedTuple):
    """One tokenized sample on its way into a store.

    Attributes:
        ids: Token ids, int32[length], at least one.
        targets: Which tokens are trained, bool[length].
        task: Index into the store's task names.
        origin: Where the sample came from.
    """

    ids: npt.NDArray[np.int32]
    targets: npt.NDArray[np.bool_]
    task: int
    origin: Origin


@dataclass(frozen=True, eq=False)
class TokenStore:
    """Tokenized samples, one after the other (S samples, N tokens).

    Attributes:
        directory: The folder the arrays are mapped from.
        tasks: Task names; `task` indexes them.
        files: Origin files; `origin_file` indexes them.
        fingerprint: What the store was made from, as given to `write`.
        tokens: int32[N].
        targets: bool[N]; the first token of a sample is never a target.
        offsets: int64[S + 1]; sample s is ``tokens[offsets[s]:offsets[s + 1]]``.
        target_counts: int64[S], target tokens of each sample.
        task: int32[S].
        origin_file: int32[S].
        origin_line: int64[S], from 1; 0 when made.
    """

    directory: Path
    tasks: list[str]
    files: list[str]
    fingerprint: str
    tokens: npt.NDArray[np.int32]
    targets: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    target_counts: npt.NDArray[np.int64]
    task: npt.NDArray[np.int32]
    origin_file: npt.NDArray[np.int32]
    origin_line: npt.NDArray[np.int64]

    @property
    def num_samples(self) -> int:
        """Number of samples S."""
        return len(self.task)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each sample, int64[S]."""
        return np.diff(self.offsets)

    def origin(self, sample: int) -> Origin:
        """The file and line that sample ``sample`` came from."""
        return Origin(self.files[self.origin_file[sample]], int(self.origin_line[sample]))

    @classmethod
    def write(
        cls, directory: Path, entries: Iterable[Entry], tasks: Sequence[str], fingerprint: str = ""
    ) -> TokenStore:
        """Writes a store and opens it; the folder appears whole or not at all and replaces an older one.

        Entries are written as they come, so that memory does not grow with their number of tokens.

        Args:
            directory: The folder to create.
            entries: The samples in their order.
            tasks: Task names.
            fingerprint: A digest of what the samples were made from.

        Raises:
            DataError: The folder cannot be written (read-only, disk full).
        """
        with store_writer(directory, tasks, fingerprint) as writer:
            for entry in entries:
                writer.append(entry)
        return cls.open(directory)

    @classmethod
    def open(cls, directory: Path) -> TokenStore:
        """Maps a store into memory, read-only.

        Raises:
            DataError: No store is there, or one of its files is missing or cut short.
        """
        meta = _read_meta(directory)
        arrays = {name: _map(directory, name, meta["bytes"]) for name in _DTYPES}
        return cls(directory, meta["tasks"], meta["files"], meta["fingerprint"], **arrays)


@contextmanager
def store_writer(directory: Path, tasks: Sequence[str], fingerprint: str = "") -> Iterator[StoreWriter]:
    """Opens a store for writing; the folder appears when the block ends well, and not at all otherwise.

    Args:
        directory: Where the store shall appear; an older one is replaced.
        tasks: Task names.
        fingerprint: A digest of what the samples are made from.

    Yields:
        The writer, for `StoreWriter.append`.

    Raises:
        DataError: The folder cannot be written (read-only, disk full).
    """
    try:
        with whole_folder(directory) as scratch, ExitStack() as streams:
            writer = StoreWriter(scratch, tasks, streams)
            yield writer
            writer.finish(fingerprint)
    except OSError as error:
        message = f"cannot write the token store: {error.strerror}; free some space or change output_dir"
        raise DataError(directory, 0, message) from error


class StoreWriter:
    """Writes a store sample by sample; made by `store_writer`.

    Args:
        folder: An empty folder.
        tasks: Task names.
        streams: Closes the open files.
    """

    def __init__(self, folder: Path, tasks: Sequence[str], streams: ExitStack) -> None:
        self._folder = folder
        self._tasks = list(tasks)
        self._files: dict[str, int] = {}
        self._columns = {name: array("q") for name in _DTYPES if name not in _STREAMED}
        self._columns["offsets"].append(0)
        self._streams = {name: streams.enter_context(_stream(folder, name)) for name in _STREAMED}

    def append(self, entry: Entry) -> None:
        """Adds one sample; its first token is taken out of the targets."""
        assert len(entry.ids) == len(entry.targets) > 0, "a sample has tokens, and one target flag for each"
        assert 0 <= entry.task < len(self._tasks), f"task {entry.task} has no name"
        targets = np.array(entry.targets, dtype=np.bool_)
        targets[0] = False  # nothing stands before it to predict it from
        self._streams["tokens"].write(np.asarray(entry.ids, dtype=_DTYPES["tokens"]).tobytes())
        self._streams["targets"].write(targets.tobytes())
        self._columns["offsets"].append(self._columns["offsets"][-1] + len(targets))
        self._columns["target_counts"].append(int(np.count_nonzero(targets)))
        self._columns["task"].append(entry.task)
        self._columns["origin_file"].append(self._files.setdefault(entry.origin.path, len(self._files)))
        self._columns["origin_line"].append(entry.origin.line)

    def finish(self, fingerprint: str) -> None:
        """Writes what is only known at the end: lengths, places, sizes."""
        for name, stream in self._streams.items():
            stream.seek(0)
            _write_header(stream, name, self._columns["offsets"][-1])
            stream.flush()
        for name, column in self._columns.items():
            np.save(_array_path(self._folder, name), np.array(column, dtype=_DTYPES[name]))
        meta = {
            "version": _VERSION,
            "tasks": self._tasks,
            "files": list(self._files),
            "fingerprint": fingerprint,
            "bytes": {name: _array_path(self._folder, name).stat().st_size for name in _DTYPES},
        }
        write_json(self._folder / _META, meta)


@contextmanager
def _stream(folder: Path, name: str) -> Iterator[IO[bytes]]:
    stream = _array_path(folder, name).open("wb")
    try:
        _write_header(stream, name, 0)
        yield stream
    finally:
        with suppress(OSError):  # on a full disk the buffered rest fails again; the first error tells why
            stream.close()


def _array_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _write_header(stream: IO[bytes], name: str, length: int) -> None:
    # numpy pads the header for growth along the first axis, so the final length fits over the first one.
    header = {"descr": _DTYPES[name].str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(stream, header)


def _read_meta(directory: Path) -> Mapping[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((directory / _META).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"no readable token store here ({error}); prepare the data again"
        raise DataError(directory, 0, message) from error
    if meta.get("version") != _VERSION:
        message = f"token store of version {meta.get('version')}, not {_VERSION}; prepare the data again"
        raise DataError(directory, 0, message)
    return meta


def _map(directory: Path, name: str, sizes: Mapping[str, int]) -> npt.NDArray[Any]:
    path = _array_path(directory, name)
    found = path.stat().st_size if path.exists() else 0
    if found != sizes[name]:
        message = f"cut short: {found} of {sizes[name]} bytes; delete {directory} and prepare the data again"
        raise DataError(path, 0, message)
    mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    return mapped
