"""The files of solutions that scoring and a submission take: ``generations_{model}/…``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from mftrun.errors import ConfigError
from mftrun.files import write_atomically
from mftrun.solving.earlier import set_aside

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_PLAIN = ("model", "checkpoint")  # says nothing of which model it is
_TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d.*")  # of a run's folder, below one with the run's name


def model_name(path: str, asked: str | None = None) -> str:
    """A name of a model that is fit for files.

    Args:
        path: Folder of the model or its run, or an id on the hub.
        asked: What the user calls it.

    Raises:
        ConfigError: The name that was asked for is not fit for files.
    """
    if asked is not None:
        if not asked.strip(".") or _UNSAFE.search(asked):
            raise ConfigError("job.model_name", f"must be letters, digits and any of ._-, not {asked!r}")
        return asked
    folder = Path(path).expanduser()
    parts = folder.absolute().parts if folder.exists() else folder.parts
    *above, named = ["", *(part for part in parts if part not in _PLAIN)]
    if above and _TIME.fullmatch(named):
        named = f"{above[-1]}-{named}"
    return _UNSAFE.sub("-", named).strip("-") or "model"


def generations_file(output: Path, model: str, task: str) -> Path:
    """Where the solutions of a task lie."""
    return output / f"generations_{model}" / f"generations_{task}_{model}.json"


def write_generations(path: Path, solutions: Sequence[Sequence[str]]) -> None:
    """Writes the solutions of a task, of each problem and sample one, in one step.

    A file that is there, and holds others or more of them, is kept; see `set_aside`.

    Raises:
        ConfigError: The file cannot be written.
    """
    if not _is_part(_there(path), solutions):
        set_aside(path, path.parent.parent, "holds other solutions than are written now, or more of them")
    try:
        write_atomically(path, json.dumps([list(samples) for samples in solutions]) + "\n")
    except OSError as error:
        raise ConfigError("output", f"cannot write {path}: {error.strerror}") from error


def _there(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError):
        return None


def _is_part(before: object, now: Sequence[Sequence[str]]) -> bool:
    """Whether nothing of what is there is lost."""
    if not isinstance(before, list) or len(before) > len(now):
        return False
    return all(
        isinstance(old, list) and list(new[: len(old)]) == old for old, new in zip(before, now, strict=False)
    )
