"""The files of solutions: ``generations_{model}/generations_{task}_{model}.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mftrun.errors import ConfigError, DataError

_PREFIX = "generations_"


@dataclass(frozen=True)
class Generations:
    """A folder of solutions of one model.

    Attributes:
        folder: The folder itself.
        model: The model's name, as files and folder have it.
        files: The file of each task, by the task's name, in order of names.
        others: What else is there.
    """

    folder: Path
    model: str
    files: Mapping[str, Path]
    others: Sequence[Path]

    def read(self, task: str) -> list[list[str]]:
        """The solutions of a task: for each problem, one of each sample.

        Raises:
            ConfigError: There is no file of this task.
            DataError: As `read_solutions`.
        """
        if task not in self.files:
            known = ", ".join(self.files)
            raise ConfigError("benchmarks", f"{self.folder} holds no solutions of {task}; it holds {known}")
        return read_solutions(self.files[task])


def find_generations(asked: str, key: str = "generations") -> Generations:
    """The folder of solutions that a path means: it itself, or the only one below it.

    Args:
        asked: The path.
        key: Where it was written, for messages.

    Raises:
        ConfigError: There is no such folder, or there are several.
    """
    root = Path(asked).expanduser().absolute()
    found = [root] if _is_one(root) else sorted(path for path in root.glob(f"{_PREFIX}*") if _is_one(path))
    if len(found) == 1:
        return _opened(found[0])
    if found:
        raise ConfigError(key, f"{root} holds several models; name one of {', '.join(map(str, found))}")
    if not root.exists():
        raise ConfigError(key, f"there is no folder {root}")
    raise ConfigError(
        key, f"{root} holds no folder generations_MODEL with files generations_TASK_MODEL.json, and is none"
    )


def read_solutions(path: Path) -> list[list[str]]:
    """The solutions in a file: for each problem, one of each sample.

    Raises:
        DataError: It is no list of lists of texts, or its problems differ in their numbers of samples.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(path, 0, f"cannot be read as JSON: {error}") from error
    if not isinstance(rows, list):
        raise DataError(path, 0, f"must hold a list with an entry for each problem, not a {_kind(rows)}")
    if not rows:
        raise DataError(path, 0, "is empty: it must hold a list with an entry for each problem")
    for number, row in enumerate(rows):
        _check_row(path, number, row)
    sizes = sorted({len(row) for row in rows})
    if len(sizes) > 1:
        raise DataError(path, 0, f"problems have {sizes[0]} to {sizes[-1]} samples; all need as many")
    return [list(row) for row in rows]


def _check_row(path: Path, number: int, row: object) -> None:
    if not isinstance(row, list) or not row:
        raise DataError(path, 0, f"problem {number} must be a list of at least one solution")
    for sample, solution in enumerate(row):
        if not isinstance(solution, str):
            raise DataError(
                path, 0, f"sample {sample} of problem {number} must be a text, not a {_kind(solution)}"
            )


def _is_one(folder: Path) -> bool:
    return folder.name.startswith(_PREFIX) and folder.is_dir() and bool(_files(folder))


def _opened(folder: Path) -> Generations:
    files = _files(folder)
    others = [path for path in sorted(folder.iterdir()) if path not in files.values()]
    return Generations(folder, folder.name.removeprefix(_PREFIX), files, others)


def _files(folder: Path) -> dict[str, Path]:
    ending = f"_{folder.name.removeprefix(_PREFIX)}.json"
    paths = sorted(folder.glob(f"{_PREFIX}*.json"))
    return {
        path.name.removeprefix(_PREFIX).removesuffix(ending): path
        for path in paths
        if path.name.endswith(ending)
    }


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "mapping", str: "text", list: "list"}
    return names.get(type(value), "number or null")
