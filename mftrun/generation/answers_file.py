"""Answers as JSON lines, one per prompt, written as they come; a file that was interrupted goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mftrun.data.digests import digest
from mftrun.errors import ConfigError
from mftrun.generation.finishing import Finished
from mftrun.generation.requests import Request

_KEY = "key"


def answer_key(ids: Sequence[int], number: int, settings: Mapping[str, Any]) -> str:
    """What an answer depends on, in short.

    Args:
        ids: Tokens of the prompt.
        number: Its place among all.
        settings: Plain values: where the model lies, and how tokens are chosen.
    """
    return digest([list(map(int, ids)), number, dict(settings)])[:16]


class AnswersFile:
    """A file of answers; answers of the same prompts that it holds already are kept.

    Args:
        path: The file; its folder is made when absent.
        keys: Of all answers that it shall hold, in order.

    Attributes:
        done: How many of them it held when it was opened.

    Raises:
        ConfigError: It holds something else, or cannot be written.
    """

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self._keys = keys
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a+b")
        except OSError as error:
            raise ConfigError("job.output", f"cannot write {path}: {error.strerror}") from error
        self._stream.seek(0)
        lines = self._stream.read().split(b"\n")
        whole = lines[:-1]  # a kill may have left the last one unfinished
        self.done = len(whole)
        if len(whole) > len(keys) or [_key_of(line) for line in whole] != list(keys[: len(whole)]):
            self._stream.close()
            raise ConfigError(
                "job.output",
                f"{path} holds answers to other prompts, or from other settings; name another file",
            )
        self._stream.truncate(sum(len(line) + 1 for line in whole))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def write(self, number: int, request: Request, answers: Sequence[Finished]) -> None:
        """Adds the answers to a prompt; they are on their way to the disk when this returns.

        Args:
            number: The prompt's place among the keys.
            request: The prompt.
            answers: Its answers.
        """
        line = {
            "number": number,
            "origin": request.origin,
            "messages": request.as_values(),
            "answers": [answer._asdict() for answer in answers],
            _KEY: self._keys[number],
        }
        self._stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()


def _key_of(line: bytes) -> str | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found.get(_KEY) if isinstance(found, dict) else None
