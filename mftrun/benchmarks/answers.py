"""Programs from answers: code that goes on with what has begun, or a function alone in a fenced block."""

from __future__ import annotations

from mftrun.benchmarks.compat import Compat
from mftrun.benchmarks.cutting import END_OF_TEXT, before_stop
from mftrun.benchmarks.dialects.base import Dialect
from mftrun.benchmarks.fences import FENCE, fenced


def solution(begun: str, answer: str, dialect: Dialect, compat: Compat) -> str:
    """The program that an answer makes of what has begun.

    Args:
        begun: Code that the answer begins with, without white space at its end; its last function is the one
            that is asked for.
        answer: What the model wrote behind it.
        dialect: How programs are written.
        compat: Which faults to repeat. Unless they are only cut, answers may be more than a continuation:
            talk around a fenced block, or a first line without the break before it.
    """
    answer = answer.partition(END_OF_TEXT)[0].rstrip()
    if not compat.answers_only_cut:
        if (whole := _standing_alone(begun, answer, dialect)) is not None:
            return whole
        answer = _on_its_own_line(_fenced_continuation(answer, dialect))
    return (begun + dialect.block.cut(before_stop(answer, dialect.stops(compat)))).rstrip()


def _standing_alone(begun: str, answer: str, dialect: Dialect) -> str | None:
    """A program from the first fenced block that defines the function; None if the answer just goes on."""
    defined = dialect.definitions(begun)
    if not defined or not _talks(answer, dialect):
        return None
    *helpers, asked = defined
    code = next((code for code in fenced(answer) if dialect.defined(asked.name, code)), None)
    if code is None:
        return None
    repeats = any(dialect.defined(helper.name, code) for helper in helpers)
    return dialect.surroundings.complete(code.rstrip(), asked.before, repeats)


def _fenced_continuation(answer: str, dialect: Dialect) -> str:
    if not _talks(answer, dialect):
        return answer
    return next((code for code in fenced(answer) if dialect.block.goes_on(code)), answer)


def _talks(answer: str, dialect: Dialect) -> bool:
    """Whether there is a fence, and what stands before it is not the function's own end."""
    before, fence, _ = answer.partition(FENCE)
    return bool(fence) and not dialect.block.goes_on(before)


def _on_its_own_line(answer: str) -> str:
    """An indented first line begins a line: what has begun has lost the break at its end."""
    first = answer.partition("\n")[0]
    return f"\n{answer}" if first.strip() and first[0] in " \t" else answer
