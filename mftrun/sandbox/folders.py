"""Folders that programs which nobody trusts are given, and what they leave in them."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

from mftrun.sandbox.base import End, Limits
from mftrun.sandbox.rlimits import NOBODY

MANY = 20_000  # files of one program
DEEP = 64  # folders in one another: many of Python's functions call themselves for each of them
LONG = 2_000  # bytes of a path below the folder; the kernel takes 4,096 for all of it


def hand_over(files: Path, build: Path) -> None:
    """Where this is root: lets nobody read the one folder, and write in the other.

    Args:
        files: The folder to be read.
        build: The folder to be written in.
    """
    if os.geteuid():
        return
    for path in (files, *files.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    if build.stat().st_uid != NOBODY:
        os.chown(build, NOBODY, NOBODY)


def tidy(folder: Path, limits: Limits) -> tuple[End, str] | None:
    """Removes what is neither a file nor a folder, and opens folders that were closed.

    No link, pipe or socket stays that would lead whoever reads the folder, or removes it, somewhere else. A
    folder that holds more than it may is emptied: its depth may be such that others fail to remove it.

    Args:
        folder: What a program has written in, and does no longer.
        limits: What all that is in it may take.

    Returns:
        What was wrong with it; None where it holds no more than it may.
    """
    folder.chmod(0o755)
    wrong = _fault(folder, _opened(_entries(folder)), limits)
    if wrong is not None:
        empty(folder)
    return wrong


def empty(folder: Path) -> None:
    """Removes all that is in a folder, however deep it lies.

    What lies in a folder below is brought up before that is removed, so no path grows long, and no function
    calls itself.

    Args:
        folder: What nobody writes in any longer.
    """
    fresh = (f"{uuid.uuid4().hex}-{number}" for number in count())
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while below := _remove_files(top):
            for name in below:
                _bring_up(top, name, fresh)
    finally:
        os.close(top)


class Filling:
    """Looks at the folder that a command writes in.

    Args:
        folder: The folder.
        limits: What all that is in it may take.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits

    def check(self) -> tuple[End, str] | None:
        """How the command has to end, and why; None where it may go on."""
        return _fault(self._folder, _entries(self._folder), self._limits)


class _Entry(NamedTuple):
    """What lies in a folder, with the number of folders between them."""

    found: os.DirEntry[str]
    depth: int

    @property
    def is_folder(self) -> bool:
        return self.found.is_dir(follow_symlinks=False)

    @property
    def size(self) -> int:
        try:
            return self.found.stat(follow_symlinks=False).st_blocks * 512
        except OSError:  # it has just gone
            return 0


def _entries(folder: Path) -> Iterator[_Entry]:
    """All that lies in a folder and below; whoever asks stops where that is too deep."""
    waiting = [(str(folder), 0)]
    while waiting:
        path, depth = waiting.pop()
        try:
            found = [_Entry(entry, depth) for entry in os.scandir(path)]
        except OSError:  # it has just gone, or was closed
            continue
        for entry in found:
            yield entry
            if entry.is_folder:
                waiting.append((entry.found.path, depth + 1))


def _opened(entries: Iterable[_Entry]) -> Iterator[_Entry]:
    """Opens folders, and removes what is neither a file nor a folder."""
    for entry in entries:
        path = Path(entry.found.path)
        if entry.is_folder:
            path.chmod(0o755)
        elif not stat.S_ISREG(entry.found.stat(follow_symlinks=False).st_mode):
            path.unlink()
        yield entry


def _fault(folder: Path, entries: Iterable[_Entry], limits: Limits) -> tuple[End, str] | None:
    size = 0
    longest = len(os.fsencode(folder)) + LONG
    for number, entry in enumerate(entries, 1):
        size += entry.size
        if number >= MANY:
            return End.OUTPUT, f"it wrote {MANY:,} files or more"
        if entry.depth >= DEEP or len(os.fsencode(entry.found.path)) > longest:
            return End.OUTPUT, f"it made folders {DEEP} deep or with paths of {LONG:,} bytes"
    return (End.OUTPUT, "its files are too large together") if size > limits.disk else None


def _remove_files(folder: int) -> list[str]:
    """Removes what is not a folder, and opens what is; gives the names of the latter."""
    below = []
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.name, 0o700, dir_fd=folder)
            below.append(entry.name)
        else:
            os.unlink(entry.name, dir_fd=folder)
    return below


def _bring_up(top: int, name: str, fresh: Iterator[str]) -> None:
    """Moves the folders of a folder to the one above it, and removes it with its files."""
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        for below in _remove_files(folder):
            os.rename(below, next(fresh), src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)
