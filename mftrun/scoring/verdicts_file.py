"""Verdicts as JSON lines, written as they come; a file that was interrupted goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from mftrun.errors import ConfigError
from mftrun.files import write_atomically
from mftrun.languages.base import Judged, Verdict
from mftrun.scoring.attempts import Attempt

_FIELDS: Mapping[str, type | tuple[type, ...]] = MappingProxyType(
    {
        "problem": str,
        "sample": int,
        "verdict": str,
        "seconds": (int, float),
        "key": str,
        "log": str,
    }
)
_EARLIER = "earlier"


class VerdictsFile:
    """The verdicts on the solutions of a benchmark.

    A kill may have left its last line unfinished; that one is cut off. Lines are added as verdicts come, and
    put in order once all are there; behind them those of other solutions and settings stay, which are marked
    as ``earlier``. What the sandbox failed to judge stands in the file, but is not known.

    Args:
        path: The file; its folder is made when absent.

    Raises:
        ConfigError: It holds something else, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a+b")
            self._stream.seek(0)
            *lines, _ = self._stream.read().split(b"\n")
        self._lines = [self._parsed(number, line) for number, line in enumerate(lines, 1)]
        with self._told():
            self._stream.truncate(sum(len(line) + 1 for line in lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stream.close()
        except OSError as fault:  # what is left to write; where there is an error already, it is this one
            if error is None:
                raise self._refusal(fault) from fault

    def known(self) -> dict[str, Judged]:
        """The verdicts by `Attempt.key`, without those that the sandbox failed to find."""
        found = {line["key"]: _judged(line) for line in self._lines}
        return {key: one for key, one in found.items() if one.verdict is not Verdict.SANDBOX_ERROR}

    def add(self, attempts: Iterable[Attempt], judged: Judged) -> None:
        """Adds a verdict on equal programs; it is on its way to the disk when this returns.

        Raises:
            ConfigError: The disk is full, or the like; as of `finish`.
        """
        with self._told():
            for attempt in attempts:
                self._stream.write(_encoded(_line(attempt, judged)))
            self._stream.flush()

    def finish(self, attempts: Sequence[Attempt], verdicts: Sequence[Judged]) -> None:
        """Puts these verdicts first, in this order, in one step."""
        lines = [_line(attempt, judged) for attempt, judged in zip(attempts, verdicts, strict=True)]
        with self._told():
            write_atomically(self._path, b"".join(map(_encoded, [*lines, *self._others(attempts)])))

    def _others(self, attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
        """The last line about each program that is not among these, as far as it is known."""
        mine, known = {attempt.key for attempt in attempts}, self.known()
        found = {(line["problem"], line["sample"], line["key"]): line for line in self._lines}
        kept = (line for line in found.values() if line["key"] in known and line["key"] not in mine)
        return [{**line, _EARLIER: True} for line in kept]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> ConfigError:
        return ConfigError(
            "output", f"cannot write {self._path}: {error.strerror}; verdicts that it holds are kept"
        )

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
            if isinstance(found, dict) and _is_typed(found) and _judged(found):
                return found
        except (ValueError, RecursionError):
            pass
        self._stream.close()
        raise ConfigError(
            "output", f"line {number} of {self._path} is no verdict; name another folder, or remove the file"
        )


def _line(attempt: Attempt, judged: Judged) -> dict[str, Any]:
    return {
        "problem": attempt.problem,
        "sample": attempt.sample,
        "verdict": judged.verdict.value,
        "seconds": round(judged.seconds, 3),
        "key": attempt.key,
        "log": judged.log,
    }


def _encoded(line: Mapping[str, Any]) -> bytes:
    # Logs are what programs said: they may hold what no encoding knows.
    return json.dumps(line).encode() + b"\n"


def _is_typed(line: Mapping[str, Any]) -> bool:
    typed = all(isinstance(line.get(name), type_) for name, type_ in _FIELDS.items())
    return typed and isfinite(line["seconds"])


def _judged(line: dict[str, Any]) -> Judged:
    return Judged(Verdict(line["verdict"]), line["log"], line["seconds"])
