"""Datasets of the Hugging Face hub, or saved in a folder, read through the library ``datasets``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mftrun.data.chunks import CHUNK_BYTES, RefusedChunk, table_chunk
from mftrun.data.readers import first_line
from mftrun.data.recognition import listed, recogniser
from mftrun.data.source import Chunk
from mftrun.errors import DataError

_PARSING = 2  # to be raised when the same rows become other samples
_ON_HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?$|hf://|buckets/")
_PATIENCE = 10.0  # seconds for the hub's first answer
_STREAMED_ROWS = 256  # in a chunk: a stream does not tell how long its rows are
_SAVED = ("state.json", "dataset_dict.json")


class _Rows(NamedTuple):
    """Rows of a dataset, and its columns that are left out of them."""

    table: Any
    unread: frozenset[str]


@dataclass(frozen=True)
class HubDataset:
    """A split of a dataset.

    Args:
        name: Its id on the hub (``owner/name``), or a folder: one that ``save_to_disk`` wrote, or one with
            files that ``datasets.load_dataset`` reads.
        subset: Its configuration, where it has several.
        split: The split, also a slice of it (``train[:10%]``), though not of a saved dataset.
        revision: Branch, tag or commit on the hub.
        streaming: Read it from the network as it is used, without keeping it on disk.
        format: A name of `FORMATS` that all samples are in; None recognises the format of each.
        columns: The names that records have for keys of formats, by these keys.

    Raises:
        ConfigError: There is no such format, or it reads no such key.
    """

    name: str
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = False
    format: str | None = None
    columns: Mapping[str, str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        recogniser(self.format, self.columns)

    @property
    def location(self) -> str:
        """Name, subset and split."""
        return f"{self.name}{f'/{self.subset}' if self.subset else ''}[{self.split}]"

    def size(self) -> int:
        """Rows; 0 if a stream does not tell."""
        if not self.streaming:
            return len(self._rows.table)
        split = (self._rows.table.info.splits or {}).get(self.split)
        return (split.num_examples or 0) if split else 0

    def chunks(self) -> Iterator[Chunk]:
        """Reads batches of rows."""
        form, first = recogniser(self.format, self.columns), 1
        rows, unread = self._rows
        for batch in self._batches(rows):
            yield table_chunk(self.location, first, batch, batch.num_rows, form, unread)
            first += batch.num_rows
        if first == 1:
            yield RefusedChunk(DataError(self.location, 0, "the dataset is empty"))

    def fingerprint(self) -> Mapping[str, Any]:
        """What was asked for, and which content it has now.

        That is the size and modification time of a folder's files, the fingerprint that ``datasets`` gives
        what it has downloaded, or the commit that is streamed.
        """
        settings = {"format": self.format, "columns": listed(self.columns), "parsing": _PARSING}
        settings["dataset"] = self.location
        if (folder := self._folder) is not None:
            return settings | _state(folder)
        if self.streaming:
            return settings | {"commit": self._commit()}
        return settings | {"content": self._rows.table._fingerprint}

    @property
    def _folder(self) -> Path | None:
        folder = Path(self.name).expanduser()
        return folder if folder.is_dir() else None

    @cached_property
    def _rows(self) -> _Rows:
        try:
            rows = self._load()
            names = list(rows.column_names or ())
        except DataError:
            raise
        except Exception as error:  # the library, its readers and the network raise dozens of kinds
            raise DataError(self.location, 0, self._why(error)) from error
        read = recogniser(self.format, self.columns).columns(names)
        unread = frozenset(names).difference(read)
        return _Rows((rows.select_columns(read) if unread else rows).with_format("arrow"), unread)

    def _load(self) -> Any:
        import datasets

        folder = self._folder
        if folder is None:
            self._refuse_unreachable()
        elif self.revision is not None:
            raise DataError(self.location, 0, f"is a folder, and has no revision {self.revision}")
        if folder is None or not any((folder / name).is_file() for name in _SAVED):
            name = self.name if folder is None else str(folder)
            return datasets.load_dataset(
                name, self.subset, split=self.split, revision=self.revision, streaming=self.streaming
            )
        if self.subset is not None:
            raise DataError(self.location, 0, "a saved dataset has no subsets; give the folder of one alone")
        saved = datasets.load_from_disk(str(folder))
        if isinstance(saved, datasets.DatasetDict):
            if self.split not in saved:
                raise DataError(self.location, 0, f"no such split; the dataset has {', '.join(saved)}")
            saved = saved[self.split]
        return saved.to_iterable_dataset() if self.streaming else saved

    def _refuse_unreachable(self) -> None:
        """Fails at once where the library would try again and again, and name a folder that does not exist.

        Raises:
            DataError: The name is that of a folder, or the hub cannot be reached and nothing is kept of it.
        """
        import datasets
        import huggingface_hub

        missing = f"there is no folder {self.name} here"
        if not _ON_HUB.match(self.name):
            raise DataError(self.location, 0, missing)
        kept = Path(datasets.config.HF_DATASETS_CACHE) / self.name.replace("/", "___")
        if _is_offline() or kept.is_dir():
            return
        try:
            huggingface_hub.HfApi().dataset_info(self.name, revision=self.revision, timeout=_PATIENCE)
        except (huggingface_hub.errors.HfHubHTTPError, huggingface_hub.errors.OfflineModeIsEnabled):
            return  # the hub answers, or nobody shall ask it: `datasets` says well what is wrong
        except Exception as error:  # as above
            message = f"{missing}, and the hub cannot be reached ({first_line(error)})"
            raise DataError(self.location, 0, message) from error

    def _batches(self, rows: Any) -> Iterator[Any]:
        size = _STREAMED_ROWS
        if not self.streaming:
            size = max(1, CHUNK_BYTES * len(rows) // max(1, rows.data.nbytes))
        try:
            yield from rows.iter(size)
        except Exception as error:  # as above
            raise DataError(self.location, 0, self._why(error)) from error

    def _commit(self) -> str:
        import huggingface_hub

        self._refuse_unreachable()
        try:
            found = huggingface_hub.HfApi().dataset_info(self.name, revision=self.revision)
        except Exception as error:  # as above
            raise DataError(self.location, 0, self._why(error)) from error
        return str(found.sha)

    def _why(self, error: Exception) -> str:
        message = f"cannot be loaded: {first_line(error)}"
        if self._folder is not None:
            return f"{message}; name a folder of plain files with data.tasks.NAME.path instead"
        if _is_offline():
            return (
                f"{message}; HF_HUB_OFFLINE is set: unset it, or download the dataset where there is a "
                "connection, or give a folder with its files as data.tasks.NAME.path"
            )
        return f"{message}; is the id right, and is there a connection and leave to read it?"


def _is_offline() -> bool:
    import datasets

    return bool(datasets.config.HF_HUB_OFFLINE)


def _state(folder: Path) -> dict[str, str]:
    files = sorted(
        Path(where, name) for where, _, names in os.walk(folder, followlinks=True) for name in names
    )
    stats = {str(file.resolve()): file.stat() for file in files if file.is_file()}
    return {path: f"{stat.st_size} bytes of {stat.st_mtime_ns}" for path, stat in stats.items()}
