"""Benchmarks from the hub, downloaded because the user said so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mftrun.benchmarks.base import Source
from mftrun.benchmarks.files import Rows, read_lines
from mftrun.data.readers import first_line
from mftrun.errors import ConfigError, DataError

log = logging.getLogger(__name__)

_KEY = "benchmark_data"


@dataclass(frozen=True)
class HubData:
    """Rows that are downloaded, or have been before.

    Args:
        revision: Branch, tag or commit; None takes the newest, or the newest that is here when the hub cannot
            be reached.
        dataset: Id of what is asked for every source; None takes where each is published.
    """

    revision: str | None = None
    dataset: str | None = None

    def rows(self, source: Source) -> Rows:
        """All rows of a source; see `BenchmarkData`."""
        source = source._replace(dataset=self.dataset or source.dataset)
        readers = _readers(source)
        log.info("asking the hub for %s of %s", _shown(source), source.dataset)
        folder = self._folder(source, list(readers))
        log.info("%s is at revision %s", source.dataset, folder.name)
        found = [(file, read) for pattern, read in readers.items() for file in sorted(folder.glob(pattern))]
        if not found:
            raise ConfigError(
                _KEY,
                f"{source.dataset} at revision {folder.name} has no {' and no '.join(readers)} here; "
                "name another revision, or give a folder",
            )
        kind = found[0][1]
        return [row for file, read in found if read is kind for row in read(file)]

    def _folder(self, source: Source, patterns: list[str]) -> Path:
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(
                    source.dataset, repo_type="dataset", revision=self.revision, allow_patterns=patterns
                )
            )
        except (OSError, ValueError) as error:  # errors of the hub are OSErrors
            at = f" at revision {self.revision}" if self.revision else ""
            raise ConfigError(
                _KEY,
                f"neither the hub nor its cache here gives {source.dataset}{at} ({first_line(error)}); "
                f"is there a connection? Without one name a folder that holds {source.file}",
            ) from error


def _readers(source: Source) -> Mapping[str, Callable[[Path], Rows]]:
    """Patterns of files on the hub, and how each is read; the first that is there is taken."""
    return {
        f"data/{source.subset}/data/*.jsonl": lambda file: list(read_lines(file)),
        f"{source.subset or 'data'}/{source.split}-*.parquet": _parquet,
    }


def _parquet(file: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[Mapping[str, Any]] = pq.read_table(file).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(file, 0, f"is no Parquet file, or is damaged: {first_line(error)}") from error
    return [(f"{file}:{number}", row) for number, row in enumerate(rows, start=1)]


def _shown(source: Source) -> str:
    return f"{source.subset}[{source.split}]" if source.subset else source.split
