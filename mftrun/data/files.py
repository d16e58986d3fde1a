"""Files that hold the samples of a task: one, a folder of them, or a glob."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mftrun.data.readers import READERS, ending
from mftrun.data.recognition import listed, recogniser
from mftrun.data.source import Chunk
from mftrun.errors import DataError

_log = logging.getLogger(__name__)
_PARSING = 2  # to be raised when the same bytes become other samples
_NEAR = re.compile(r"json|parquet", re.IGNORECASE)
_DATASET_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SAVED_DATASET = ("state.json", "dataset_dict.json")


@dataclass(frozen=True)
class Files:
    """A file, all files of a folder at any depth, or what a glob finds (``data/*.jsonl``, ``data/**``).

    Of folders and globs, hidden files and folders are passed over, and so are other kinds of files than those
    of `READERS`. A file that is found several times is read once.

    Args:
        path: The file, folder or glob; ``~`` is the home folder.
        format: A name of `FORMATS` that all samples are in; None recognises the format of each.
        columns: The names that records have for keys of formats, by these keys.

    Raises:
        ConfigError: There is no such format, or it reads no such key.
    """

    path: str
    format: str | None = None
    columns: Mapping[str, str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        recogniser(self.format, self.columns)

    @property
    def location(self) -> str:
        """The path."""
        return str(Path(self.path).expanduser())

    def files(self) -> list[Path]:
        """The files in the order of their names.

        Raises:
            DataError: Nothing is there, or only files that cannot be read, or all are empty.
        """
        root = Path(self.location)
        found = _once(_found(root))
        if not found:
            raise DataError(root, 0, f"no file with samples here; their names end in {', '.join(READERS)}")
        if not any(file.stat().st_size for file in found):
            raise DataError(root, 0, "the file is empty" if found == [root] else "all files are empty")
        return found

    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files())

    def chunks(self) -> Iterator[Chunk]:
        """Reads all files; a file without a sample gives its error."""
        form = recogniser(self.format, self.columns)
        for file in self.files():
            yield from READERS[ending(file) or ""].chunks(file, form)

    def fingerprint(self) -> Mapping[str, Any]:
        """Format and columns; of every file, what a link leads to, its size, and when it was changed."""
        settings = {"format": self.format, "columns": listed(self.columns), "parsing": _PARSING}
        return settings | {str(file.absolute()): _state(file) for file in self.files()}


def _state(file: Path) -> str:
    # The time of the last change of any kind as well: an old modification time can be put on new content.
    stat = file.stat()
    return f"{file.resolve()}, {stat.st_size} bytes of {stat.st_mtime_ns}, changed {stat.st_ctime_ns}"


def _found(root: Path) -> list[Path]:
    """The files that may be read, in order; each may be there several times."""
    if root.is_dir():
        _refuse_saved_dataset(root)
        return _readable(_below(root), root)
    if root.exists():
        return [root] if ending(root) else []
    if not glob.has_magic(str(root)):
        _refuse_missing(root)
    if not (matches := [Path(match) for match in glob.glob(str(root), recursive=True)]):  # noqa: PTH207
        raise DataError(root, 0, "no file matches")
    below = (_below(match) if match.is_dir() else [match] for match in matches)
    return _readable((file for files in below for file in files), root)


def _readable(files: Iterable[Path], root: Path) -> list[Path]:
    files = sorted(set(files))
    near = sorted({file.name for file in files if not ending(file) and _NEAR.search(file.name)})
    if near:
        _log.warning("%s: not read, as only *%s are: %s", root, ", *".join(READERS), ", ".join(near))
    return [file for file in files if ending(file)]


def _below(folder: Path) -> list[Path]:
    """All files below a folder that are not hidden, linked folders included, each folder once."""
    files: list[Path] = []
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if os.path.realpath(where) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(where))
        files += (Path(where, name) for name in names if not name.startswith("."))
    return files


def _once(files: list[Path]) -> list[Path]:
    """Each file under the first of its names."""
    first: dict[Path, Path] = {}
    for file in files:
        if not file.is_file():
            raise DataError(file, 0, "a link to nothing" if file.is_symlink() else "not a file")
        kept = first.setdefault(file.resolve(), file)
        if kept is not file:
            _log.warning("%s: the same file as %s; read once", file, kept)
    _warn_of_twins(list(first.values()))
    return list(first.values())


def _warn_of_twins(files: list[Path]) -> None:
    names: dict[str, Path] = {}
    for file in files:
        twin = names.setdefault(str(file).removesuffix(ending(file) or ""), file)
        if twin is not file:
            _log.warning("%s and %s: both are read; do they hold the same samples?", twin, file.name)


def _refuse_saved_dataset(folder: Path) -> None:
    if any((folder / name).is_file() for name in _SAVED_DATASET):
        message = "a dataset saved by the library datasets; name it with data.tasks.NAME.dataset, not path"
        raise DataError(folder, 0, message)


def _refuse_missing(root: Path) -> NoReturn:
    hint = ""
    if _DATASET_ID.fullmatch(str(root)):
        hint = f"; a dataset of the Hugging Face hub is named with data.tasks.NAME.dataset={root}"
    raise DataError(root, 0, f"no such file or folder{hint}")


def _refuse_unreadable(error: OSError) -> NoReturn:
    raise DataError(error.filename, 0, f"cannot be read: {error.strerror}")
