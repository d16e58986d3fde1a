"""One process at a time works in a run's folder."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mftrun.errors import ConfigError

LOCK = ".lock"
# Whoever looks whether a run is going on holds its lock for an instant.
_TRIES, _PAUSE = 20, 0.05


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the run's folder; the system lets go of it when this process ends, however it ends.

    Raises:
        ConfigError: Another process holds it.
    """
    with (run_dir / LOCK).open("w") as file:
        if not _taken_soon(file.fileno()):
            raise ConfigError(
                "output_dir",
                f"another process is running in {run_dir}; wait for it, or choose another folder",
            )
        yield


@contextmanager
def owned(folder: Path, key: str) -> Iterator[None]:
    """Makes a folder where there is none, and holds it: one process at a time writes there.

    Args:
        folder: The folder.
        key: What the user has named it with.

    Raises:
        ConfigError: Another process holds it, or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder))
        except OSError as error:
            raise ConfigError(key, f"cannot write in {folder}: {error.strerror}") from error
        except ConfigError as error:
            raise ConfigError(key, error.message) from error
        yield


def is_locked(run_dir: Path) -> bool:
    """Whether some process holds the run's folder."""
    try:
        with (run_dir / LOCK).open("r+") as file:
            return not _taken(file.fileno())
    except OSError:
        return False


def _taken_soon(descriptor: int) -> bool:
    for _ in range(_TRIES):
        if _taken(descriptor):
            return True
        time.sleep(_PAUSE)
    return False


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
