"""HumanEvalPack: the problems of HumanEval in six languages, to be solved or mended.

Muennighoff et al., OctoPack: Instruction Tuning Code Large Language Models, 2023 (arXiv 2308.07124).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mftrun.benchmarks.answers import solution
from mftrun.benchmarks.base import BenchmarkData, Problem, Prompt, Source
from mftrun.benchmarks.compat import STRICT, Compat
from mftrun.benchmarks.dialects.base import Dialect
from mftrun.benchmarks.rows import Table
from mftrun.languages.base import Program

_DATASET = "bigcode/humanevalpack"
_TEXTS = (
    *("task_id", "prompt", "declaration", "canonical_solution", "buggy_solution", "test"),
    *("entry_point", "instruction"),
)


class Task(Protocol):
    """What is asked."""

    @property
    def name(self) -> str:
        """As names of benchmarks have it."""

    def begun(self, fields: Mapping[str, Any], dialect: Dialect) -> str:
        """Code that the answer begins with."""

    def instruction(self, fields: Mapping[str, Any], dialect: Dialect) -> str:
        """What a user would say."""


@dataclass(frozen=True)
class Synthesize:
    """Write a function from its description."""

    name: str = "synthesize"

    def begun(self, fields: Mapping[str, Any], dialect: Dialect) -> str:
        """Imports, signature and description."""
        return str(fields["prompt"])

    def instruction(self, fields: Mapping[str, Any], dialect: Dialect) -> str:
        """The published instruction."""
        return str(fields["instruction"]).strip()


@dataclass(frozen=True)
class FixTests:
    """Mend a function by its tests."""

    name: str = "fixtests"

    def begun(self, fields: Mapping[str, Any], dialect: Dialect) -> str:
        """Imports and signature."""
        return dialect.before_declaration + str(fields["declaration"])

    def instruction(self, fields: Mapping[str, Any], dialect: Dialect) -> str:
        """The wrong function, its tests, and what to do."""
        wrong = self.begun(fields, dialect) + fields["buggy_solution"]
        return f"{wrong}\n{fields['test']}\nFix bugs in {fields['entry_point']}."


@dataclass(frozen=True)
class HumanEvalPack:
    """One task in one language.

    Args:
        task: What is asked.
        dialect: How programs are written in the language.
        compat: Which faults to repeat.
    """

    task: Task
    dialect: Dialect
    compat: Compat = STRICT

    @property
    def name(self) -> str:
        """Task and language."""
        return f"humaneval{self.task.name}-{self.dialect.name}"

    @property
    def language(self) -> str:
        """A key of the languages."""
        return self.dialect.name

    @property
    def stop(self) -> Sequence[str]:
        """Texts that end an answer."""
        return self.dialect.stops(self.compat)

    def problems(self, data: BenchmarkData) -> list[Problem]:
        """All problems, checked; see `Benchmark`."""
        name = self.dialect.name
        source = Source(f"humanevalpack/{name}.jsonl", _DATASET, name, "test")
        return Table(source, (*_TEXTS, *self.dialect.fields)).problems(data, self.name)

    def prompt(self, problem: Problem) -> Prompt:
        """The instruction and the beginning of the function; see `Benchmark`."""
        return Prompt(self.task.instruction(problem.fields, self.dialect), self._begun(problem))

    def postprocess(self, problem: Problem, answer: str) -> str:
        """The beginning and the block that goes on with it, or a function that stands alone."""
        return solution(self._begun(problem), answer, self.dialect, self.compat)

    def assemble(self, problem: Problem, solution: str) -> Program:
        """What the language needs, the solution, the tests; see `Benchmark`."""
        fields = problem.fields
        source = self.dialect.surroundings.assemble(solution, fields, self.compat)
        return Program(self.language, f"{source}\n{fields['test']}", self.dialect.seconds)

    def canonical(self, problem: Problem) -> str:
        """The right solution as it was published: some would be cut if a model had written them.

        They have a helper behind the function in Go, Rust or C++.
        """
        return self._published(problem, "canonical_solution")

    def buggy(self, problem: Problem) -> str | None:
        """The wrong solution as it was published."""
        return self._published(problem, "buggy_solution")

    def _begun(self, problem: Problem) -> str:
        # Without white space at its end: models write the line break and what follows as one token.
        return self.task.begun(problem.fields, self.dialect).rstrip()

    def _published(self, problem: Problem, field: str) -> str:
        whole = self.task.begun(problem.fields, self.dialect) + str(problem.fields[field])
        return whole.rstrip()
