"""Python code in an answer that may talk: found by what Python itself can read."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_READ = 150_000  # characters; reading an answer again and again, because it defies it, ends here
_TRIES = 4  # of an answer as long as that
_BEGINS = re.compile(
    r"(?:async def|def|class|import|from|for|while|with|if|try)\b|[@#]"
    r"|[A-Za-z_][\w.]*\(|[A-Za-z_(\[*][^=\n]*=(?!=)"
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


class Code(NamedTuple):
    """Code in an answer.

    Attributes:
        text: The code; empty where there is none.
        defines: Whether it defines a function or a class.
    """

    text: str
    defines: bool


_NONE = Code("", False)


def python_code(answer: str) -> Code:
    """The longest run of lines that is Python, from the first line of code on.

    A run that defines a function comes before one that does not.

    Args:
        answer: What a model wrote.
    """
    lines = answer.replace("\r\n", "\n").replace("\r", "\n").partition("\0")[0].rstrip().split("\n")
    runs = list(_runs(lines))
    return next((run for run in runs if run.defines), runs[0] if runs else _NONE)


def _runs(lines: Sequence[str]) -> Iterator[Code]:
    """Runs of lines that are code, up to the first that defines a function."""
    tries = iter(range(_TRIES + _READ // (1 + sum(len(line) + 1 for line in lines))))
    start = 0
    while start < len(lines):
        run = _longest(lines, start, tries) if _BEGINS.match(lines[start]) else _NONE
        if run.text:
            yield run
        if run.defines:
            return
        start += 1 + run.text.count("\n")


def _longest(lines: Sequence[str], start: int, tries: Iterator[int]) -> Code:
    """The longest run from a line on that can be read; nothing once there are no tries left."""
    end = len(lines)
    while end > start and next(tries, None) is not None:
        text = "\n".join(lines[start:end]).rstrip()
        try:
            tree = _read(text)
        except SyntaxError as error:
            end = min(start + (error.lineno or 1), end) - 1
        except (ValueError, RecursionError, MemoryError):  # what Python cannot read here, nor could it run
            break
        else:
            return Code(text, any(isinstance(node, _FUNCTIONS) for node in ast.walk(tree)))
    return _NONE


def _read(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of texts with wrong escapes
        return ast.parse(text)
