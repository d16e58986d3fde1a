"""What a benchmark is: problems, prompts, and the programs that answers become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from mftrun.languages.base import Program


@dataclass(frozen=True)
class Problem:
    """A row of a benchmark.

    Attributes:
        id: Its name, as in ``HumanEval/0``.
        fields: All that its file says of it.
    """

    id: str
    fields: Mapping[str, Any]


class Prompt(NamedTuple):
    """What is asked of a model.

    Attributes:
        instruction: What a user would say.
        begun: Code that the answer begins with; the model writes on behind it.
    """

    instruction: str
    begun: str


@runtime_checkable
class Benchmark(Protocol):
    """Problems of one kind in one language."""

    @property
    def name(self) -> str:
        """As users write it, as in ``humanevalsynthesize-java``."""

    @property
    def language(self) -> str:
        """A key of the languages."""

    @property
    def stop(self) -> Sequence[str]:
        """Texts that end an answer."""

    def problems(self, data: BenchmarkData) -> list[Problem]:
        """All of its problems, in order, checked.

        Raises:
            ConfigError: They are not there; says where they may come from.
            DataError: A row is not as it must be; names file and line.
        """

    def prompt(self, problem: Problem) -> Prompt:
        """What is asked of a model."""

    def postprocess(self, problem: Problem, answer: str) -> str:
        """The solution: the whole program before imports and tests, as ``generations_*.json`` holds it.

        Args:
            problem: The problem.
            answer: What the model wrote behind the prompt.
        """

    def assemble(self, problem: Problem, solution: str) -> Program:
        """A solution with imports and tests.

        Args:
            problem: The problem.
            solution: As `postprocess` made it.
        """

    def canonical(self, problem: Problem) -> str:
        """The right solution, in the form of `postprocess`."""

    def buggy(self, problem: Problem) -> str | None:
        """A wrong solution, in the form of `postprocess`; None where there is none."""


class BenchmarkData(Protocol):
    """Where the rows of benchmarks come from."""

    def rows(self, source: Source) -> list[tuple[str, Mapping[str, Any]]]:
        """All rows of a source, each with its place (file and line, or dataset and row).

        Raises:
            ConfigError: There is no such source there; says what to do.
            DataError: A file cannot be read, or a line is no record.
        """


class Source(NamedTuple):
    """Where a benchmark is published.

    Attributes:
        file: Its file in a folder of benchmarks, as ``humanevalpack/java.jsonl``.
        dataset: Its id on the hub.
        subset: Its configuration there; None where there is but one.
        split: Its split there.
    """

    file: str
    dataset: str
    subset: str | None
    split: str
