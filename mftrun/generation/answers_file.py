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

_ANSWERS, _KEY = "answers", "key"


def answer_key(ids: Sequence[int], number: int, settings: Mapping[str, Any]) -> str:
    """What an answer depends on, in short.

    Args:
        ids: Tokens of the prompt.
        number: Its place among all.
        settings: Plain values: the model, how it is held, and how tokens are chosen.
    """
    return digest([list(map(int, ids)), number, dict(settings)])[:16]


class AnswersFile:
    """A file of answers; answers of the same prompts that it holds already are kept.

    A kill may have left its last line unfinished. That one is cut off and written anew, if it is the
    beginning of the line that would stand there; nothing else is ever taken out of a file.

    Args:
        path: The file; its folder is made when absent.
        keys: Of all answers that it shall hold, in order.
        requests: What they answer, in the same order.

    Attributes:
        done: How many of them it held when it was opened.

    Raises:
        ConfigError: It holds something else, or cannot be written.
    """

    def __init__(self, path: Path, keys: Sequence[str], requests: Sequence[Request]) -> None:
        self._keys = keys
        self._requests = requests
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a+b")
        except OSError as error:
            raise ConfigError("job.output", f"cannot write {path}: {error.strerror}") from error
        self._stream.seek(0)
        *whole, rest = self._stream.read().split(b"\n")
        self.done = len(whole)
        if not (self._are_ours(whole) and self._is_begun(rest)):
            self._stream.close()
            raise ConfigError(
                "job.output",
                f"{path} holds something else, or answers to other prompts, of another model or from other "
                "settings; name another file",
            )
        self._stream.truncate(sum(len(line) + 1 for line in whole))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def write(self, number: int, answers: Sequence[Finished]) -> None:
        """Adds the answers to a prompt; they are on their way to the disk when this returns.

        Args:
            number: The prompt's place among the keys.
            answers: Its answers.
        """
        line = {
            **self._beginning(number),
            _ANSWERS: [answer._asdict() for answer in answers],
            _KEY: self._keys[number],
        }
        self._stream.write(_written(line) + b"\n")
        self._stream.flush()

    def _beginning(self, number: int) -> dict[str, Any]:
        """What a line begins with, whatever the answers are."""
        request = self._requests[number]
        return {"number": number, "origin": request.origin, "messages": request.as_values()}

    def _are_ours(self, lines: Sequence[bytes]) -> bool:
        return [_key_of(line) for line in lines] == list(self._keys[: len(lines)])

    def _is_begun(self, rest: bytes) -> bool:
        """Whether a line without an end is what a kill left of the next one."""
        if not rest:
            return True
        if self.done == len(self._keys):
            return False
        head = _written({**self._beginning(self.done), _ANSWERS: []}).removesuffix(b"]}")
        is_beginning = rest.startswith(head) or head.startswith(rest)
        return is_beginning and _key_of(rest) in (None, self._keys[self.done])


def _written(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode()


def _key_of(line: bytes) -> str | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found.get(_KEY) if isinstance(found, dict) else None
