"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"


def write_atomically(path: Path, data: bytes | str) -> None:
    """Replaces ``path`` by ``data`` in one step: readers see the old content or the new, never a part.

    Args:
        path: The file; its folder is made when absent.
        data: Its new content; text is written as UTF-8.

    Raises:
        OSError: The folder cannot be written, or the disk is full; the previous file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers apart; the ending stays, as some libraries go by it.
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        with partial.open("wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON, in one step (see :func:`write_atomically`)."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives a scratch folder that becomes ``path`` once the block ends, or vanishes if it raises.

    An earlier folder at ``path`` stays until the new one is complete.

    Args:
        path: Where the folder shall appear.

    Yields:
        The scratch folder, beside ``path``.
    """
    try:
        yield begin_folder(path)
        publish_folder(path)
    except BaseException:
        discard_folder(path)
        raise


def scratch_folder(path: Path) -> Path:
    """Where what shall become the folder ``path`` is gathered: beside it."""
    return path.with_name(f"{PARTIAL}{path.name}")


def begin_folder(path: Path) -> Path:
    """Makes the empty scratch folder of ``path``: :func:`whole_folder` in parts, where several write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    discard_folder(path)
    _finish_swap(path)
    scratch = scratch_folder(path)
    scratch.mkdir()
    return scratch


def publish_folder(path: Path) -> None:
    """Makes the scratch folder of ``path`` appear there, in one step."""
    scratch = scratch_folder(path)
    _sync_tree(scratch)
    _swap(scratch, path)
    _sync_folder(path.parent)


def discard_folder(path: Path) -> None:
    """Removes the scratch folder of ``path``, if there is one."""
    shutil.rmtree(scratch_folder(path), ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """Removes what a killed run left unfinished in ``folder``."""
    for leftover in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _swap(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    path.rename(_old(path))
    new.rename(path)
    shutil.rmtree(_old(path))


def _finish_swap(path: Path) -> None:
    """Mends what a kill between the renames of a swap has left: the old folder goes back, or goes away."""
    if _old(path).exists() and not path.exists():
        _old(path).rename(path)
    shutil.rmtree(_old(path), ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f".replaced-{path.name}")


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            if path.stat().st_nlink == 1:  # another name of the same file is not ours to change
                path.chmod(0o666 & ~_umask())  # some libraries write for the owner alone
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    _sync_folder(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
