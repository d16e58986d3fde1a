"""Judge right and wrong solutions: `python benchmarks/canonical.py DATA [-b NAME ...] [--first N]`.

DATA is a folder of benchmarks (`humanevalpack/LANGUAGE.jsonl`, `mbpp.jsonl`), or `hub`. Each benchmark's own
solutions go the way of a model's: assembled, compiled and run in the sandbox. Prints how many right ones
passed, how many wrong ones did, the rate, and the names of all that were not judged as they should be.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mftrun.benchmarks.base import Benchmark, BenchmarkData, Problem
from mftrun.benchmarks.compat import COMPATS, Compat
from mftrun.benchmarks.data import benchmark_data
from mftrun.benchmarks.registry import find
from mftrun.languages.base import Judged, Language, Verdict
from mftrun.languages.judge import judge
from mftrun.languages.registry import languages
from mftrun.sandbox.base import Sandbox
from mftrun.sandbox.choice import Auto
from mftrun.text_table import text_table

HEADER = ("benchmark", "right", "passed", "wrong", "passed", "seconds", "programs/s")
COLUMNS = len(HEADER)
SHOWN = 300  # characters of a log


@dataclass(frozen=True)
class Case:
    """A solution whose verdict is known."""

    problem: Problem
    solution: str
    right: bool

    def surprises(self, judged: Judged) -> bool:
        return self.right is not (judged.verdict is Verdict.PASSED)

    def tell(self, judged: Judged) -> str:
        kind = "right" if self.right else "wrong"
        return f"{self.problem.id}, {kind} solution: {judged.verdict.value}: {judged.log[-SHOWN:]}"


@dataclass(frozen=True)
class Bench:
    """What judges."""

    languages: Mapping[str, Language]
    sandbox: Sandbox
    workers: int

    def measure(self, benchmark: Benchmark, cases: Sequence[Case]) -> tuple[Sequence[Judged], float]:
        """Verdicts, in order, and the seconds they took; without the first one, which may prepare tools."""
        first = self._judge(benchmark, cases[0])
        start = time.monotonic()
        with ThreadPoolExecutor(self.workers) as pool:
            others = list(pool.map(lambda case: self._judge(benchmark, case), cases[1:]))
        return [first, *others], time.monotonic() - start

    def _judge(self, benchmark: Benchmark, case: Case) -> Judged:
        program = benchmark.assemble(case.problem, case.solution)
        return judge(program, self.languages[program.language], self.sandbox)


def cases(benchmark: Benchmark, data: BenchmarkData, first: int | None) -> list[Case]:
    """Right and wrong solutions of the first problems."""
    found = []
    for problem in benchmark.problems(data)[:first]:
        found.append(Case(problem, benchmark.canonical(problem), True))
        if (buggy := benchmark.buggy(problem)) is not None:
            found.append(Case(problem, buggy, False))
    return found


def row(bench: Bench, benchmark: Benchmark, chosen: Sequence[Case]) -> Sequence[str]:
    """One line of the table; tells of surprises as they come."""
    if missing := bench.languages[benchmark.language].missing():
        print(f"{benchmark.name}: skipped, {missing.what} is not here: {missing.install}", flush=True)
        return [benchmark.name, *["-"] * (COLUMNS - 1)]
    verdicts, seconds = bench.measure(benchmark, chosen)
    judged = list(zip(chosen, verdicts, strict=True))
    for case, verdict in judged:
        if case.surprises(verdict):
            print(f"{benchmark.name}: {case.tell(verdict)}", flush=True)
    passed = [case.right for case, verdict in judged if verdict.verdict is Verdict.PASSED]
    right = sum(case.right for case in chosen)
    counts = (right, passed.count(True), len(chosen) - right, passed.count(False))
    rate = (len(chosen) - 1) / seconds if len(chosen) > 1 else 0.0
    return [benchmark.name, *map(str, counts), f"{seconds:.0f}", f"{rate:.1f}"]


def main() -> None:
    arguments = parsed()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    compat: Compat = COMPATS[arguments.compat]
    data = benchmark_data(arguments.data)
    bench = Bench(languages(compat), Auto(allow_unsafe=arguments.unsafe).open(), arguments.workers)
    lines = [HEADER]
    for benchmark in find(arguments.benchmarks, compat):
        lines.append(row(bench, benchmark, cases(benchmark, data, arguments.first)))
        print(text_table([HEADER, lines[-1]]), flush=True)
    print(f"\n{bench.sandbox.name}, {bench.workers} workers, {arguments.compat}\n{text_table(lines)}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", metavar="DATA", help="folder of benchmarks, or hub")
    names = ["humanevalsynthesize", "mbpp"]
    parser.add_argument("-b", "--benchmarks", nargs="+", metavar="NAME", default=names, help="names and sets")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N problems of each")
    parser.add_argument("--workers", type=int, metavar="N", default=os.cpu_count() or 1, help="at once")
    parser.add_argument("--compat", choices=sorted(COMPATS), default="strict", help="faults to repeat")
    parser.add_argument("--unsafe", action="store_true", help="run without a sandbox where there is none")
    return parser.parse_args()


if __name__ == "__main__":
    main()
