"""Benchmarks by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mftrun.benchmarks.base import Benchmark
from mftrun.benchmarks.compat import STRICT, Compat
from mftrun.benchmarks.dialects.cpp import CPP
from mftrun.benchmarks.dialects.go import GO
from mftrun.benchmarks.dialects.java import JAVA
from mftrun.benchmarks.dialects.javascript import JAVASCRIPT
from mftrun.benchmarks.dialects.python import PYTHON
from mftrun.benchmarks.dialects.rust import RUST
from mftrun.benchmarks.humaneval import HumanEval
from mftrun.benchmarks.humanevalpack import FixTests, HumanEvalPack, Synthesize
from mftrun.benchmarks.mbpp import Mbpp
from mftrun.errors import ConfigError
from mftrun.nearest import unknown

DIALECTS = (PYTHON, JAVA, JAVASCRIPT, CPP, GO, RUST)
_TASKS = (Synthesize(), FixTests())


def _names(*tasks: Synthesize | FixTests) -> tuple[str, ...]:
    return tuple(HumanEvalPack(task, dialect).name for task in tasks for dialect in DIALECTS)


SETS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "humanevalsynthesize": _names(_TASKS[0]),
        "humanevalfixtests": _names(_TASKS[1]),
        "humanevalpack": _names(*_TASKS),
        "competition": (*_names(*_TASKS), "mbpp"),
    }
)
"""Names that stand for several."""


def benchmarks(compat: Compat = STRICT) -> dict[str, Benchmark]:
    """All benchmarks that are known, by name.

    Args:
        compat: Which faults to repeat.
    """
    packs = [HumanEvalPack(task, dialect, compat) for task in _TASKS for dialect in DIALECTS]
    every: list[Benchmark] = [HumanEval(compat), Mbpp(compat), *packs]
    return {benchmark.name: benchmark for benchmark in every}


def find(
    names: Sequence[str], compat: Compat = STRICT, own: Mapping[str, Benchmark] | None = None
) -> list[Benchmark]:
    """The benchmarks of some names and sets, in their order, each once.

    Args:
        names: Of benchmarks and sets.
        compat: Which faults to repeat.
        own: Benchmarks of the user, by name (the root key `own_benchmarks`).

    Raises:
        ConfigError: There is none of a name, or none is named at all, or two have the same name.
    """
    known = {**benchmarks(compat), **_checked(own or {})}
    if isinstance(names, str) or not names:
        raise ConfigError("benchmarks", f"name some in a list, as in benchmarks=[{next(iter(known))}]")
    every = [name for one in names for name in SETS.get(one, (one,))]
    for name in every:
        if name not in known:
            raise ConfigError("benchmarks", unknown(name, {*known, *SETS}, f"there is no benchmark {name}"))
    return [known[name] for name in dict.fromkeys(every)]


def _checked(own: Mapping[str, Benchmark]) -> dict[str, Benchmark]:
    for name, benchmark in own.items():
        if name in benchmarks() or name in SETS:
            raise ConfigError(f"own_benchmarks.{name}", "is the name of a known benchmark; choose another")
        if not isinstance(benchmark, Benchmark):
            raise ConfigError(
                f"own_benchmarks.{name}",
                f"is a {type(benchmark).__name__}, and no Benchmark; give its _target_",
            )
        if benchmark.name != name:
            raise ConfigError(f"own_benchmarks.{name}", f"calls itself {benchmark.name}; use the same name")
    return dict(own)
