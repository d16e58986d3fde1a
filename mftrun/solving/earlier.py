"""Files that give way to others are kept: results of an earlier command may have taken hours."""

from __future__ import annotations

import logging
from itertools import count
from pathlib import Path

from mftrun.errors import ConfigError

_log = logging.getLogger(__name__)

EARLIER = "earlier"


def set_aside(path: Path, output: Path, why: str) -> None:
    """Moves a file to the folder ``earlier``, under a number of its own, and says so.

    Args:
        path: The file.
        output: The folder that gets ``earlier``.
        why: What the file holds that the new one will not.

    Raises:
        ConfigError: It cannot be moved.
    """
    folder = output / EARLIER
    names = (folder / f"{number}-{path.name}" for number in count(1))
    target = next(name for name in names if not name.exists())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    except OSError as error:
        raise ConfigError("output", f"cannot move {path} to {target}: {error.strerror}") from error
    _log.warning("%s %s; it is kept as %s", path, why, target)
