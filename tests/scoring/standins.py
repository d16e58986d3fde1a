"""A benchmark whose solutions say what becomes of them, in a language that nothing needs to run."""

from dataclasses import dataclass

from mftrun.errors import MftrunError
from mftrun.languages.base import Judged, Missing, Program, Recipe, Verdict
from mftrun.sandbox.base import Limits, Step


@dataclass(frozen=True)
class Plain:
    """A language; a program's text is its verdict."""

    name: str = "plain"
    tool: str | None = None
    driver: str = "1"
    fault: str | None = None
    smallest: str = "smallest passed"

    def missing(self):
        return None if self.tool is None else Missing(self.tool, f"install {self.tool}")

    def prepare(self):
        if self.fault is not None:
            raise MftrunError(self.fault)

    def versions(self):
        return ()

    def recipe(self, program, nonce):
        files = {"program": program.source, "driver": self.driver}
        return Recipe(files, None, Step(["run", nonce], Limits(program.seconds)))


@dataclass(frozen=True)
class Words:
    """A benchmark of two problems."""

    name: str = "words"
    language: str = "plain"

    def assemble(self, problem, solution):
        return Program(self.language, f"{problem.id} {solution}", 1.0)


class Judge:
    """Gives the verdict that a program's text names, and keeps the texts."""

    def __init__(self):
        self.seen = []

    def __call__(self, language):
        return self._judge

    def _judge(self, program):
        if not program.source.startswith("smallest"):
            self.seen.append(program.source)
        return Judged(Verdict(program.source.partition(" ")[2]), f"log of {program.source}", 0.5)
