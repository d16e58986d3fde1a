"""The competition's submission: what departs from its rules, and the zip."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mftrun.errors import ConfigError, DataError
from mftrun.files import write_atomically
from mftrun.scoring.generations import Generations, read_solutions

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can tell
_MODE = 0o100644 << 16


def deviations(generations: Generations, rows: Mapping[str, int], manners: Mapping[str, str]) -> list[str]:
    """All that departs from the competition's rules.

    Args:
        generations: The solutions.
        rows: Problems of each benchmark of the competition, by its name.
        manners: How its solutions were generated, as of `known_manners`, where that is known.
    """
    found = (
        *_of_names(generations, rows),
        *_of_files(generations, rows),
        *_of_sampling(generations, rows, manners),
    )
    return sorted(found)


def write_zip(generations: Generations, tasks: Mapping[str, int], output: Path) -> list[str]:
    """Writes the zip, in one step: the same solutions make the same bytes.

    Args:
        generations: The solutions.
        tasks: The competition's benchmarks; files of others are left out.
        output: The file.

    Returns:
        The names in the zip.

    Raises:
        ConfigError: It cannot be written.
    """
    paths = [path for task, path in sorted(generations.files.items()) if task in tasks]
    names = [f"{generations.folder.name}/{path.name}" for path in paths]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, path in zip(names, paths, strict=True):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr, entry.compress_type = _MODE, zipfile.ZIP_DEFLATED
            file.writestr(entry, path.read_bytes())
    try:
        write_atomically(output, buffer.getvalue())
    except OSError as error:
        raise ConfigError("output", f"cannot write {output}: {error.strerror}") from error
    return names


def _of_names(generations: Generations, rows: Mapping[str, int]) -> Iterator[str]:
    for task in rows.keys() - generations.files.keys():
        yield f"{task} is missing: there is no generations_{task}_{generations.model}.json"
    for path in generations.others:
        yield f"{path.name} does not belong there"


def _of_files(generations: Generations, rows: Mapping[str, int]) -> Iterator[str]:
    for task, path in generations.files.items():
        if task in rows:
            yield from _of_file(path, rows[task])


def _of_file(path: Path, rows: int) -> Iterator[str]:
    try:
        solutions = read_solutions(path)
    except DataError as error:
        yield f"{path.name}: {error.message}"
        return
    if len(solutions) != rows:
        yield f"{path.name} has {len(solutions)} rows, not {rows}"
    if solutions and len(solutions[0]) != 1:
        yield f"{path.name} has {len(solutions[0])} samples of each problem, not one"


def _of_sampling(
    generations: Generations, rows: Mapping[str, int], manners: Mapping[str, str]
) -> Iterator[str]:
    for task in generations.files.keys() & rows.keys():
        if manners.get(task):
            yield f"{task} was generated {manners[task]}; the competition asks for plain greedy answers"
