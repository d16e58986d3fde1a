"""A benchmark that is made up, and ways to answer it."""

import json
from dataclasses import dataclass

from mftrun.benchmarks.base import Problem, Prompt
from mftrun.generation.sampling import Sampling
from mftrun.solving.solve import Task

GREEDY = Sampling(max_new_tokens=6, temperature=0.0)
LIVELY = Sampling(max_new_tokens=6, temperature=1.0, top_p=1.0, num_samples=2, seed=3)


@dataclass(frozen=True)
class Sums:
    """Asks for functions that add, in problems of different lengths."""

    name: str = "sums"
    language: str = "python"
    stop: tuple = ("\nclass",)

    def prompt(self, problem):
        return Prompt(problem.fields["text"], f"def {problem.fields['name']}(a, b):\n")

    def postprocess(self, problem, answer):
        return f"def {problem.fields['name']}(a, b):{answer}"


def problems(count=5):
    """So many problems, those in the middle the longest."""
    words = [2, 9, 5, 14, 1, 7, 3, 11]
    return [
        Problem(f"sums/{number}", {"name": f"f{number}", "text": "add " * words[number % 8]})
        for number in range(count)
    ]


def task(count=5, first=None, **changes):
    return Task(Sums(**changes), problems(count), first)


def lines(path):
    """The records of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
