"""Errors that a user can cause: each names the key or the file and line, and the way out."""

from __future__ import annotations

from pathlib import Path


class MftrunError(Exception):
    """Base of every error that is shown to the user as its message alone, without a traceback."""


class ConfigError(MftrunError):
    """A configuration key that cannot be used as it stands.

    Args:
        key: Dotted path of the key, as the user would write it on the command line.
        message: What is wrong with its value and what to do.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(key, message)
        self.key = key
        self.message = message

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


class DataError(MftrunError):
    """A sample or a file that cannot be used as it stands.

    Args:
        path: The file or folder.
        line: Line number in the file, from 1; 0 when the whole file is meant.
        message: What is wrong and what to do.
    """

    def __init__(self, path: str | Path, line: int, message: str) -> None:
        super().__init__(str(path), line, message)
        self.path = str(path)
        self.line = line
        self.message = message

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else self.path
        return f"{where}: {self.message}"
