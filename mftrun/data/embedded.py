"""Tasks that need no download: code of the running Python's own standard library."""

from __future__ import annotations

import ast
import inspect
import os
import platform
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from mftrun.data.chunks import MadeChunk
from mftrun.data.sample import ASSISTANT, USER, Message, Origin, Sample
from mftrun.data.source import Chunk

_SHARES = 6
_CHUNK = 256  # samples
_FORMAT = "made"
_PASSED_OVER = frozenset(
    {"__pycache__", "_vendor", "dist-packages", "encodings", "ensurepip", "idle_test", "idlelib", "lib2to3"}
    | {"pydoc_data", "site-packages", "test", "tests", "turtledemo"}
)
_MAX_CHARS = 800  # with a small byte-level vocabulary, well under 512 tokens


@dataclass(frozen=True)
class _Function:
    """A function of the standard library, unindented.

    Attributes:
        head: The ``def`` line or lines.
        docstring: The cleaned docstring, or "".
        body: The rest without the docstring, indented.
        origin: File and line of ``def``.
    """

    head: str
    docstring: str
    body: str
    origin: Origin


@dataclass(frozen=True)
class _StandardLibrary(ABC):
    """Samples cut from the standard library; the same for the same Python, without a random choice.

    Each task reads files that no other one reads, so that none has seen what another is validated on.

    Args:
        max_samples: Samples to cut at most.
        max_chars: Longest sample in characters.

    Raises:
        ValueError: A limit is not positive.
    """

    max_samples: int
    max_chars: int = _MAX_CHARS

    _shares: ClassVar[tuple[int, ...]]

    def __post_init__(self) -> None:
        if self.max_samples < 1 or self.max_chars < 1:
            raise ValueError("max_samples and max_chars must be at least 1")

    @property
    def location(self) -> str:
        """The Python it is cut from."""
        return f"standard library of Python {platform.python_version()}"

    def size(self) -> int:
        """Samples; they are cut when first asked for, and kept."""
        return len(self._samples)

    def chunks(self) -> Iterator[Chunk]:
        """The samples, in the order of file names and lines."""
        for start in range(0, len(self._samples), _CHUNK):
            yield MadeChunk(self._samples[start : start + _CHUNK])

    def fingerprint(self) -> Mapping[str, Any]:
        """The Python and the limits."""
        return {
            "python": platform.python_version(),
            "folder": str(_root()),
            "max_samples": self.max_samples,
            "max_chars": self.max_chars,
        }

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        return tuple(islice(self._cut(), self.max_samples))

    def _cut(self) -> Iterator[Sample]:
        seen = set()
        for function in _functions(self._shares):
            turn = self._turn(function)
            if turn is None or turn in seen or sum(map(len, turn)) > self.max_chars:
                continue
            seen.add(turn)
            prompt, answer = turn
            yield Sample((Message(USER, prompt), Message(ASSISTANT, answer)), function.origin, format=_FORMAT)

    @abstractmethod
    def _turn(self, function: _Function) -> tuple[str, str] | None:
        """Prompt and answer, or None if the function does not suit."""


class WriteFunction(_StandardLibrary):
    """Write the function from its signature and docstring."""

    _shares = (0, 1, 2)

    def _turn(self, function: _Function) -> tuple[str, str] | None:
        if not function.docstring:
            return None
        prompt = f"Write this Python function.\n\n{function.head}\n\n{function.docstring}"
        return prompt, f"{function.head}\n{function.body}"


class WriteDocstring(_StandardLibrary):
    """Write the docstring of a function."""

    _shares = (3, 4)

    def _turn(self, function: _Function) -> tuple[str, str] | None:
        if not function.docstring:
            return None
        prompt = f"Write the docstring of this Python function.\n\n{function.head}\n{function.body}"
        return prompt, function.docstring


class CompleteFunction(_StandardLibrary):
    """Write the second half of a function from its first half."""

    _shares = (5,)

    def _turn(self, function: _Function) -> tuple[str, str] | None:
        lines = function.body.split("\n")
        first, second = lines[: len(lines) // 2], lines[len(lines) // 2 :]
        if len(first) < 1 or not "".join(second).strip():
            return None
        prompt = "Complete this Python function.\n\n" + "\n".join([function.head, *first])
        return prompt, "\n".join(second)


def _functions(shares: tuple[int, ...]) -> Iterator[_Function]:
    for number, file in enumerate(_files()):
        if number % _SHARES in shares:
            yield from _functions_of(file)


def _files() -> Iterator[Path]:
    for folder, folders, files in os.walk(_root()):
        folders[:] = sorted(set(folders) - _PASSED_OVER)  # os.walk goes on into what is left here
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))


def _root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _functions_of(file: Path) -> Iterator[_Function]:
    try:
        text = file.read_bytes().decode("utf-8")
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError):  # a few files are kept broken, or Latin-1, on purpose
        return
    lines = text.replace("\r\n", "\n").split("\n")  # as ast counts them: a form feed ends no line
    for node in _function_nodes(tree):
        function = _function(node, lines, str(file))
        if function is not None:
            yield function


def _function_nodes(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from (inner for inner in node.body if isinstance(inner, ast.FunctionDef))


def _function(node: ast.FunctionDef, lines: list[str], path: str) -> _Function | None:
    docstring = ast.get_docstring(node, clean=False)
    has_docstring = docstring is not None
    head_end = node.body[0].lineno - 1
    if (
        len(node.body) == has_docstring or head_end < node.lineno
    ):  # no statement, or all on the line of ``def``
        return None
    body_start = (node.body[0].end_lineno or 0) if has_docstring else head_end
    head = _unindented(lines[node.lineno - 1 : head_end], node.col_offset)
    body = _unindented(lines[body_start : node.end_lineno], node.col_offset)
    if head is None or body is None:
        return None
    return _Function(head, inspect.cleandoc(docstring or ""), body, Origin(path, node.lineno))


def _unindented(lines: list[str], indent: int) -> str | None:
    if any(line[:indent].strip() for line in lines):  # a string with lines of its own indentation
        return None
    return "\n".join(line[indent:] for line in lines).rstrip()
