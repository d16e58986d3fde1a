"""Solutions as programs, each with a digest of all that its verdict depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mftrun.benchmarks.base import Benchmark, Problem
from mftrun.data.digests import digest
from mftrun.errors import DataError
from mftrun.languages.base import Language, Program


class Attempt(NamedTuple):
    """A solution to be judged.

    Attributes:
        problem: The problem's id.
        sample: Its number among the solutions of the problem, from 0.
        program: The program.
        key: Digest of the program and of what judges it.
    """

    problem: str
    sample: int
    program: Program
    key: str


def attempts(
    benchmark: Benchmark,
    problems: Sequence[Problem],
    solutions: Sequence[Sequence[str]],
    language: Language,
    judged_by: Mapping[str, Any],
) -> list[Attempt]:
    """The programs of a benchmark, problem by problem.

    Args:
        benchmark: The benchmark.
        problems: Its problems.
        solutions: Of each problem, in the same order, a text for each sample.
        language: The benchmark's language.
        judged_by: Plain values that verdicts depend on besides program and language.
    """
    found = []
    for problem, samples in zip(problems, solutions, strict=True):
        for number, solution in enumerate(samples):
            program = benchmark.assemble(problem, solution)
            found.append(Attempt(problem.id, number, program, fingerprint(program, language, judged_by)))
    return found


def fingerprint(program: Program, language: Language, judged_by: Mapping[str, Any]) -> str:
    """What a verdict depends on, in short: files (the driver's, too), commands, limits, versions, sandbox."""
    recipe = language.recipe(program, nonce="")
    parts = [sorted(recipe.files.items()), repr(recipe.compile), repr(recipe.run)]
    return digest([repr(program), parts, list(language.versions()), dict(judged_by)])[:16]


def fitting(
    path: Path, problems: Sequence[Problem], here: int | None, solutions: Sequence[Sequence[str]]
) -> Sequence[Sequence[str]]:
    """The solutions of some problems.

    Args:
        path: The file of solutions, for the message.
        problems: Those that are to be scored.
        here: How many problems there are, where these are only the first; None where they are all.
        solutions: The solutions in the file, of these problems or of more.

    Raises:
        DataError: They are of fewer problems, or of more than there are.
    """
    if len(problems) <= len(solutions) <= (here or len(problems)):
        return solutions[: len(problems)]
    few = f"; job.problems={len(solutions)} scores the first {len(solutions)}"
    hint = few if 0 < len(solutions) < len(problems) else ""
    raise DataError(
        path, 0, f"holds solutions of {len(solutions)} problems, not of {here or len(problems)}{hint}"
    )
