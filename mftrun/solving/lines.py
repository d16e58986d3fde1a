"""The lines of a record of answers, and files of them that a kill may have cut."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from mftrun.errors import ConfigError, DataError
from mftrun.solving.answers import Answered
from mftrun.solving.questions import Key

_TYPES: Mapping[str, type] = MappingProxyType(
    {"problem": str, "sample": int, "prompt": str, "answer": str, "finish": str, "tokens": int}
)
Lines = dict[Key, Answered]


def written(answered: Answered, **more: Any) -> str:
    """An answer as a line of JSON, without what ends the line.

    Args:
        answered: The answer.
        more: What else shall stand in it.
    """
    values = {
        "problem": answered.key.problem,
        "sample": answered.key.sample,
        "prompt": answered.digest,
        "answer": answered.answer,
        "finish": answered.finish,
        "tokens": answered.tokens,
    }
    return json.dumps({**values, **more})


def read_lines(path: Path) -> Lines:
    """All answers in a file; one that a kill has cut at its end is none. No file holds none.

    Raises:
        DataError: The file cannot be read, or a line is no answer.
    """
    try:
        *whole, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise DataError(path, 0, f"cannot be read: {error.strerror}") from error
    found = (_answered(line, path, number) for number, line in enumerate(whole, 1))
    return {answered.key: answered for answered in found}


def _answered(line: bytes, path: Path, number: int) -> Answered:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or any(
        not isinstance(values.get(name), type_) for name, type_ in _TYPES.items()
    ):
        raise DataError(path, number, "is no record of an answer; remove the line, or name another output=")
    problem, sample, *rest = (values[name] for name in _TYPES)
    return Answered(Key(problem, sample), *rest)


class Part:
    """A file that answers are added to; each is on its way to the disk when `write` returns.

    Args:
        path: The file.

    Raises:
        ConfigError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._refusal(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def write(self, answered: Answered) -> None:
        """Adds an answer.

        Raises:
            ConfigError: The disk is full, or the like.
        """
        try:
            self._stream.write(written(answered) + "\n")
            self._stream.flush()
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> ConfigError:
        return ConfigError("output", f"cannot write {self._path}: {error.strerror}")


def joined(lines: Iterable[str]) -> str:
    """Lines as the text of a file."""
    return "".join(f"{line}\n" for line in lines)
