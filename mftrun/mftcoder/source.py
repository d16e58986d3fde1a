"""An MFTCoder config as its file holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mftrun.errors import ConfigError, DataError


@dataclass(frozen=True)
class Source:
    """A config and where it came from.

    Attributes:
        path: The file.
        given: Its keys and values, with those that the user gave besides.
    """

    path: Path
    given: Mapping[str, Any]


def read_source(path: Path, more: Mapping[str, Any]) -> Source:
    """Reads a config.

    Args:
        path: A JSON file that holds one object.
        more: Values of MFTCoder's keys that win over the file's, as its command line let users give.

    Raises:
        ConfigError: The file cannot be read.
        DataError: It is no JSON object, or says a key twice; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError("file", f"{path} cannot be read: {reason}") from error
    return Source(path, MappingProxyType({**_parsed(path, text), **more}))


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: _once(path, text, pairs))
    except json.JSONDecodeError as error:
        raise DataError(path, error.lineno, f"not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(content, dict):
        raise DataError(path, 1, "holds no object; a training config is {key: value, …}")
    return content


def _once(path: Path, text: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a key occur twice, and Python takes the last without a word."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise DataError(path, _second_line(text, name), f"{name} is given twice")
    return dict(pairs)


def _second_line(text: str, name: str) -> int:
    written = f'"{name}"'
    return text.count("\n", 0, text.find(written, text.find(written) + 1)) + 1
