"""Questions: the problems of a benchmark as tokens, each as often as it is to be answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from mftrun.benchmarks.base import Benchmark, Problem
from mftrun.data.digests import digest
from mftrun.errors import MftrunError
from mftrun.generation.base import TokenPrompt
from mftrun.generation.generator import token_prompt
from mftrun.solving.styles import Bound


class Key(NamedTuple):
    """Names an answer.

    Attributes:
        problem: Id of the problem.
        sample: Which of its answers, from 0.
    """

    problem: str
    sample: int


class Question(NamedTuple):
    """What is to be answered once.

    Attributes:
        key: Names the answer.
        prompt: The tokens; their number and sample decide the random numbers.
        digest: Of the tokens, in short.
    """

    key: Key
    prompt: TokenPrompt
    digest: str


def questions(
    bound: Bound, benchmark: Benchmark, problems: Sequence[Problem], samples: int
) -> list[Question]:
    """Makes the questions of a benchmark; they do not depend on how many problems or samples there are.

    Args:
        bound: How it is asked.
        benchmark: The benchmark.
        problems: Its problems, from the first on.
        samples: Answers to each.

    Raises:
        MftrunError: The template cannot render one.
    """
    found = []
    for number, problem in enumerate(problems):
        prompt = _prompt(bound, benchmark, problem, number)
        name = digest([list(prompt.ids), prompt.begun])[:16]
        found += [
            Question(Key(problem.id, sample), prompt._replace(sample=sample), name)
            for sample in range(samples)
        ]
    return found


def _prompt(bound: Bound, benchmark: Benchmark, problem: Problem, number: int) -> TokenPrompt:
    origin = f"{benchmark.name} {problem.id}"
    try:
        request = replace(bound.form.request(benchmark.prompt(problem)), origin=origin)
        return token_prompt(bound.prompts, request, number)
    except ValueError as error:
        raise MftrunError(f"{origin}: {error}; style=instruct asks without a template") from error
