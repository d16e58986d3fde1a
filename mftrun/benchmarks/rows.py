"""Rows of a benchmark, checked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mftrun.benchmarks.base import BenchmarkData, Problem, Source
from mftrun.benchmarks.files import Row
from mftrun.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """What is known of the rows of a benchmark.

    Args:
        source: Where they are published.
        texts: Fields that hold texts.
        lists: Fields that hold lists of texts, one at least.
        numbers: Fields that hold whole numbers.
        published: How many rows there are in all.
        name: The name of a row.
        belongs: Whether a row belongs to the benchmark.
    """

    source: Source
    texts: tuple[str, ...]
    lists: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    published: int = 164
    name: Callable[[Row], str] = lambda row: str(row["task_id"])
    belongs: Callable[[Row], bool] = lambda row: True

    def problems(self, data: BenchmarkData, benchmark: str) -> list[Problem]:
        """All problems, in order.

        Args:
            data: Where rows come from.
            benchmark: Its name, for messages.

        Raises:
            ConfigError: There are no rows there.
            DataError: A row lacks a field, has one of another type, or is there twice.
        """
        found: dict[str, Problem] = {}
        for place, row in data.rows(self.source):
            self._check(place, row)
            if not self.belongs(row):
                continue
            if (name := self.name(row)) in found:
                raise DataError(place, 0, f"task_id {row['task_id']} is there twice; leave one out")
            found[name] = Problem(name, row)
        self._tell(benchmark, len(found))
        return list(found.values())

    def _check(self, place: str, row: Row) -> None:
        for names, kind, is_right in (
            (self.texts, "a text", _is_text),
            (self.lists, "a list of texts", _is_list),
            (self.numbers, "a whole number", _is_number),
        ):
            _check_fields(place, row, names, kind, is_right)

    def _tell(self, benchmark: str, count: int) -> None:
        if count == 0:
            raise DataError(self.source.file, 0, f"holds no problem of {benchmark}")
        if count != self.published:
            log.warning("%s has %d of its %d problems here", benchmark, count, self.published)


def _check_fields(
    place: str, row: Row, names: Sequence[str], kind: str, is_right: Callable[[Any], bool]
) -> None:
    for name in names:
        if name not in row:
            raise DataError(place, 0, f"has no field {name}; is this the right file?")
        if not is_right(row[name]):
            raise DataError(place, 0, f"{name} must be {kind}, not {type(row[name]).__name__}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
