"""Sources: where the samples of a task are read from."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mftrun.data.sample import ASSISTANT, SYSTEM, USER, Message, Origin, Sample, problem
from mftrun.errors import DataError

_ROLES = {"system": SYSTEM, "human": USER, "user": USER, "bot": ASSISTANT, "assistant": ASSISTANT}
_log = logging.getLogger(__name__)
_SUFFIX = ".jsonl"


@runtime_checkable
class Source(Protocol):
    """Samples that can be read again and again, in the same order each time."""

    @property
    def location(self) -> str:
        """What the user calls it: a path, or a few words."""

    def read(self) -> Iterator[Sample | DataError]:
        """Reads the samples; one that cannot be used is yielded as its error, and reading goes on.

        Raises:
            DataError: Nothing can be read at all.
        """

    def fingerprint(self) -> Mapping[str, Any]:
        """Plain values (str, int, None) that change when the samples may have changed.

        Raises:
            DataError: Nothing can be read at all.
        """


@dataclass(frozen=True)
class JsonlFolder:
    """A ``.jsonl`` file, or a folder with such files at any depth; hidden files and folders are passed over.

    Each line is an object with `chat_rounds`, a list of ``{"role", "content"}``; the roles are system
    (optional, first), then human or user and bot or assistant in turn.

    Args:
        path: The file or folder; ``~`` is the home folder.
    """

    path: str

    @property
    def location(self) -> str:
        """The path."""
        return str(Path(self.path).expanduser())

    def files(self) -> list[Path]:
        """The files in the order of their names.

        Raises:
            DataError: Nothing is there, no file ends in ``.jsonl``, or all are empty.
        """
        root = Path(self.location)
        if not root.exists():
            raise DataError(root, 0, "no such file or folder")
        found = _files_below(root) if root.is_dir() else [root]
        if not found or found[0].suffix != _SUFFIX:
            raise DataError(root, 0, f"no {_SUFFIX} file here; samples are read from files named *{_SUFFIX}")
        if not any(file.stat().st_size for file in found):
            raise DataError(
                root, 0, "the file is empty" if found == [root] else f"all {_SUFFIX} files are empty"
            )
        return found

    def read(self) -> Iterator[Sample | DataError]:
        """Reads all files, line by line; bad lines and files without a line are yielded as errors."""
        for file in self.files():
            yield from _read_file(file)

    def fingerprint(self) -> Mapping[str, Any]:
        """Size and modification time of every file."""
        stats = {str(file.resolve()): file.stat() for file in self.files()}
        return {path: f"{stat.st_size} bytes of {stat.st_mtime_ns}" for path, stat in stats.items()}


def _files_below(folder: Path) -> list[Path]:
    files = [file for file in _walk(folder) if not _is_hidden(file.relative_to(folder))]
    found = sorted(file for file in files if file.suffix == _SUFFIX)
    near = sorted(file.name for file in files if _SUFFIX in file.name.lower() and file.suffix != _SUFFIX)
    if near:
        _log.warning("%s: not read, as only *%s is: %s", folder, _SUFFIX, ", ".join(near))
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, linked folders included, each folder once."""
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(where) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(where))
        yield from (path for name in names if (path := Path(where, name)).is_file())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_file(file: Path) -> Iterator[Sample | DataError]:
    is_empty = True
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    is_empty = False
                    yield _sample_or_error(line, Origin(str(file), number))
    except OSError as error:
        raise DataError(file, 0, f"cannot be read: {error.strerror}") from error
    if is_empty:
        yield DataError(file, 0, "the file is empty")


def _sample_or_error(line: bytes, origin: Origin) -> Sample | DataError:
    try:
        messages = _messages(_json_object(line))
    except _BadLineError as error:
        return DataError(origin.path, origin.line, str(error))
    return Sample(messages, origin)


class _BadLineError(Exception):
    """What is wrong with a line."""


def _json_object(line: bytes) -> Mapping[str, Any]:
    if (at := line.find(b"\0")) >= 0:
        raise _BadLineError(f"a NUL byte at byte {at + 1}; the file is damaged, or not UTF-8")
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _BadLineError(f"not UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise _BadLineError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, a thousand brackets
        raise _BadLineError(f"not readable as JSON: {error}") from None
    if not isinstance(record, dict):
        raise _BadLineError(f"the line holds {_kind(record)}, not an object with 'chat_rounds'")
    return record


def _messages(record: Mapping[str, Any]) -> tuple[Message, ...]:
    if "chat_rounds" not in record:
        keys = ", ".join(map(repr, record)) or "none"
        raise _BadLineError(f"no 'chat_rounds'; the keys of this line are: {keys}")
    rounds = record["chat_rounds"]
    if not isinstance(rounds, list):
        raise _BadLineError(f"'chat_rounds' is {_kind(rounds)}, not a list of messages")
    messages = tuple(_message(item, number) for number, item in enumerate(rounds, start=1))
    if (wrong := problem(messages)) is not None:
        raise _BadLineError(wrong)
    return messages


def _message(item: Any, number: int) -> Message:
    if not isinstance(item, dict):
        raise _BadLineError(f"message {number} is {_kind(item)}, not an object with 'role' and 'content'")
    role, content = _text(item, "role", number), _text(item, "content", number)
    if role not in _ROLES:
        raise _BadLineError(f"message {number} has the unknown role {role!r}; use one of {', '.join(_ROLES)}")
    return Message(_ROLES[role], content)


def _text(item: Mapping[str, Any], field: str, number: int) -> str:
    if field not in item:
        raise _BadLineError(f"message {number} has no {field!r}")
    value = item[field]
    if not isinstance(value, str):
        raise _BadLineError(f"{field!r} of message {number} is {_kind(value)}, not text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _BadLineError(
            f"{field!r} of message {number} holds half a surrogate pair ({error.reason})"
        ) from None
    return value


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return {**names, list: "a list", dict: "an object"}[type(value)]
