"""MBPP: basic Python problems, in the form that InCoder's evaluation gave them.

Austin et al., Program Synthesis with Large Language Models, 2021 (arXiv 2108.07732).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile, takewhile

from mftrun.benchmarks.base import BenchmarkData, Problem, Prompt, Source
from mftrun.benchmarks.compat import STRICT, Compat
from mftrun.benchmarks.cutting import END_OF_TEXT, before_stop
from mftrun.benchmarks.fences import FENCE, fenced
from mftrun.benchmarks.files import Row
from mftrun.benchmarks.parsing import python_code
from mftrun.benchmarks.rows import Table
from mftrun.languages.base import Program

_FIRST, _LAST = 11, 510  # the rest is meant for examples and training
_SECONDS = 3.0
_DEFINITION = "def "


def _belongs(row: Row) -> bool:
    return _FIRST <= int(row["task_id"]) <= _LAST


_TABLE = Table(
    Source("mbpp.jsonl", "google-research-datasets/mbpp", "full", "test"),
    texts=("text", "code", "test_setup_code"),
    lists=("test_list",),
    numbers=("task_id",),
    published=_LAST - _FIRST + 1,
    name=lambda row: f"MBPP/{row['task_id']}",
    belongs=_belongs,
)


@dataclass(frozen=True)
class Mbpp:
    """500 Python functions from a sentence and a test.

    Args:
        compat: Which faults to repeat.
    """

    compat: Compat = STRICT
    name: str = "mbpp"
    language: str = "python"
    stop: Sequence[str] = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", END_OF_TEXT)

    def problems(self, data: BenchmarkData) -> list[Problem]:
        """All problems, checked; see `Benchmark`."""
        return _TABLE.problems(data, self.name)

    def prompt(self, problem: Problem) -> Prompt:
        """A docstring of the text and the first test; the answer begins with nothing."""
        text, test = problem.fields["text"], problem.fields["test_list"][0]
        return Prompt(f'"""\n{text}\n{test}\n"""', "")

    def postprocess(self, problem: Problem, answer: str) -> str:
        """The first fenced block, unless a function stands before it; else the code without the talk."""
        answer = before_stop(answer, self.stop)
        block = next(iter(fenced(answer)), None) if FENCE in answer else None
        if self.compat.unfenced_imports_lost:
            return (_from_definition(answer) if block is None else block).rstrip()
        begins_with_code = block is None or python_code(answer.partition(FENCE)[0]).defines
        return python_code(answer).text if begins_with_code else str(block).rstrip()

    def assemble(self, problem: Problem, solution: str) -> Program:
        """The solution, what the tests need, and the tests."""
        setup = "" if self.compat.test_setup_ignored else _lines(problem.fields["test_setup_code"])
        parts = [solution, *([setup] if setup else []), *problem.fields["test_list"]]
        return Program(self.language, "\n".join(parts), _SECONDS)

    def canonical(self, problem: Problem) -> str:
        """The right solution as it was published: many hold texts at which an answer would be cut."""
        return _lines(problem.fields["code"]).rstrip()

    def buggy(self, problem: Problem) -> str | None:
        """None: nothing wrong was published."""
        return None


def _from_definition(answer: str) -> str:
    """From the first line that defines a function, all lines that define one, are indented or empty."""
    lines = dropwhile(lambda line: not line.startswith(_DEFINITION), answer.split("\n"))
    return "\n".join(takewhile(_is_inside, lines))


def _is_inside(line: str) -> bool:
    return not line.strip() or line[0] in " \t" or line.startswith(_DEFINITION)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")
