"""From names of benchmarks to problems that are to be scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mftrun.benchmarks.base import Benchmark, Problem
from mftrun.benchmarks.compat import Compat
from mftrun.benchmarks.data import benchmark_data
from mftrun.benchmarks.registry import find
from mftrun.scoring.competition import PUBLISHED
from mftrun.scoring.scorer import Asked


def ask(
    names: Sequence[str],
    where: str | None,
    compat: Compat,
    first: int | None = None,
    own: Mapping[str, Benchmark] | None = None,
    revision: str | None = None,
) -> list[Asked]:
    """The benchmarks of some names and sets, with their problems.

    Args:
        names: Of benchmarks and sets.
        where: Where their rows are; see `benchmark_data`.
        compat: Which faults of other evaluations to repeat.
        first: How many problems of each, from the first on; None takes all.
        own: Benchmarks of the user, by name.
        revision: Branch, tag or commit of the rows on the hub.

    Raises:
        ConfigError: A name is unknown, or its problems are not there.
        DataError: A row is not as it must be.
    """
    benchmarks = find(names, compat, own)
    data = benchmark_data(where, revision)
    return [asked_of(benchmark, benchmark.problems(data), first) for benchmark in benchmarks]


def asked_of(benchmark: Benchmark, problems: Sequence[Problem], first: int | None) -> Asked:
    """A benchmark of which some problems are to be scored.

    Args:
        benchmark: The benchmark.
        problems: All of its problems that are here.
        first: How many of them, from the first on; None takes all.
    """
    of = PUBLISHED.get(benchmark.name, len(problems))
    return Asked(benchmark, problems[:first], of, None if first is None else len(problems))
