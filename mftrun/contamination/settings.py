"""Whether and how samples are compared with benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from mftrun.contamination.detector import Detector
    from mftrun.contamination.passages import Passage

_KEY = "job.contamination"


@dataclass(frozen=True)
class Contamination:
    """Benchmarks that samples are compared with, and from when on a sample is told.

    Args:
        benchmarks: Names of benchmarks and sets of them; none compares nothing.
        data: Folder of the benchmarks, or ``hub``; None takes those that are installed.
        ngram: Words of an n-gram.
        threshold: Share of the n-grams of a prompt, a solution or tests that a sample must hold to be told.
        show: Samples to print.

    Raises:
        ConfigError: A value is out of range, or is given without a benchmark.
    """

    benchmarks: list[str] = field(default_factory=list)
    data: str | None = None
    ngram: int = 10
    threshold: float = 0.5
    show: int = 5

    def __post_init__(self) -> None:
        _check("ngram", self.ngram, self.ngram >= 2, "at least 2")
        _check("threshold", self.threshold, 0 < self.threshold <= 1, "above 0 and at most 1")
        _check("show", self.show, self.show >= 0, "0 or more")
        if not self.benchmarks and (idle := next(self._changed(), None)):
            raise ConfigError(f"{_KEY}.{idle}", f"does nothing without {_KEY}.benchmarks=[NAME,…]")

    def detector(self) -> Detector | None:
        """What looks for the benchmarks; None where there are none.

        Raises:
            ConfigError: There is no such benchmark, or its problems are not there.
            DataError: A problem cannot be read.
        """
        if not self.benchmarks:
            return None
        from mftrun.contamination.detector import Detector

        return Detector(list(self._passages()), self.ngram, self.threshold)

    def _passages(self) -> Iterator[Passage]:
        from mftrun.benchmarks.data import benchmark_data
        from mftrun.benchmarks.registry import find
        from mftrun.contamination.passages import passages_of

        try:
            data = benchmark_data(self.data)
            for benchmark in find(self.benchmarks):
                yield from passages_of(benchmark, benchmark.problems(data))
        except ConfigError as error:
            key = _KEYS.get(error.key, error.key)
            raise ConfigError(key, error.message) from error

    def _changed(self) -> Iterator[str]:
        for one in fields(self):
            if one.default is not MISSING and getattr(self, one.name) != one.default:
                yield one.name


_KEYS = {"benchmarks": f"{_KEY}.benchmarks", "benchmark_data": f"{_KEY}.data"}


def _check(name: str, value: Any, is_good: bool, wanted: str) -> None:
    if not is_good:
        raise ConfigError(f"{_KEY}.{name}", f"must be {wanted}, not {value}")
