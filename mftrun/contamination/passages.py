"""From benchmarks to the texts that no sample should hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from mftrun.benchmarks.base import Benchmark, Problem, Prompt
from mftrun.contamination.views import CODE, PROSE, View

PROMPT, SOLUTION, TESTS = "prompt", "solution", "tests"
PARTS = (PROMPT, SOLUTION, TESTS)


@dataclass(frozen=True)
class Passage:
    """A text of a problem.

    Attributes:
        benchmark: Name of the benchmark.
        problem: Id of the problem.
        part: One of `PARTS`.
        view: What of it is compared.
        text: The text.
        known: What it holds besides, which does not count.
    """

    benchmark: str
    problem: str
    part: str
    view: View
    text: str
    known: str = ""


def passages_of(benchmark: Benchmark, problems: Sequence[Problem]) -> Iterator[Passage]:
    """The texts of a benchmark.

    The instruction and the code that an answer begins with say the same twice, so that either is a prompt,
    unless the one holds the other. The solution is the right program, and the tests are what is added to it.
    """
    for problem in problems:
        solution = benchmark.canonical(problem)
        program = benchmark.assemble(problem, solution).source
        place = partial(Passage, benchmark.name, problem.id)
        for text in _forms(benchmark.prompt(problem)):
            yield place(PROMPT, PROSE, text)
        yield place(SOLUTION, CODE, solution)
        yield place(TESTS, CODE, program, solution)


def _forms(prompt: Prompt) -> Iterator[str]:
    yield prompt.instruction
    if prompt.begun.strip() not in prompt.instruction:
        yield prompt.begun
