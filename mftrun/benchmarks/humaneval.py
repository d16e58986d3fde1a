"""HumanEval as it was published.

Chen et al., Evaluating Large Language Models Trained on Code, 2021 (arXiv 2107.03374).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mftrun.benchmarks.answers import solution
from mftrun.benchmarks.base import BenchmarkData, Problem, Prompt, Source
from mftrun.benchmarks.compat import STRICT, Compat
from mftrun.benchmarks.cutting import END_OF_TEXT, Indented
from mftrun.benchmarks.dialects.python import PYTHON
from mftrun.benchmarks.rows import Table
from mftrun.languages.base import Program

SOURCE = Source("HumanEval.jsonl", "openai/openai_humaneval", "openai_humaneval", "test")
_TABLE = Table(SOURCE, ("task_id", "prompt", "canonical_solution", "test", "entry_point"))
# The paper gives 3 s to a bare process. A sandbox and its interpreter have to start within it, too, while
# every core is busy with others: with 10 s, as for HumanEvalPack, only endless loops come to the end of it.
_SECONDS = 10.0


@dataclass(frozen=True)
class _OnlyStopped(Indented):
    """A block that goes on until a stop text."""

    def cut(self, text: str) -> str:
        """The whole text."""
        return text


_DIALECT = replace(
    PYTHON,
    stop=("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", END_OF_TEXT),
    seconds=_SECONDS,
    block=_OnlyStopped(),
)


@dataclass(frozen=True)
class HumanEval:
    """164 Python functions from their descriptions.

    Args:
        compat: Which faults to repeat.
    """

    compat: Compat = STRICT
    name: str = "humaneval"
    language: str = _DIALECT.name
    stop: Sequence[str] = _DIALECT.stop

    def problems(self, data: BenchmarkData) -> list[Problem]:
        """All problems, checked; see `Benchmark`."""
        return _TABLE.problems(data, self.name)

    def prompt(self, problem: Problem) -> Prompt:
        """The beginning of the function alone: the protocol knows no instruction."""
        return Prompt("", self._begun(problem))

    def postprocess(self, problem: Problem, answer: str) -> str:
        """The beginning and what goes on with it, or a function that stands alone; see `Benchmark`."""
        return solution(self._begun(problem), answer, _DIALECT, self.compat)

    def assemble(self, problem: Problem, solution: str) -> Program:
        """The solution, the tests, and their call."""
        test, name = problem.fields["test"], problem.fields["entry_point"]
        return Program(self.language, f"{solution}\n{test}\ncheck({name})\n", _DIALECT.seconds)

    def canonical(self, problem: Problem) -> str:
        """The right solution as it was published."""
        return str(problem.fields["prompt"] + problem.fields["canonical_solution"]).rstrip()

    def buggy(self, problem: Problem) -> str | None:
        """None: nothing wrong was published."""
        return None

    def _begun(self, problem: Problem) -> str:
        return str(problem.fields["prompt"]).rstrip()
