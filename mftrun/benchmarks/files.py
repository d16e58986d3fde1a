"""Files of JSON lines, each line with its place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mftrun.data.compression import DAMAGE, describe, gzipped, opened, plain
from mftrun.errors import DataError

Row = Mapping[str, Any]
Rows = list[tuple[str, Row]]


def read_lines(file: Path) -> Iterator[tuple[str, Row]]:
    """All records of a file, plain or ``.gz``; blank lines are passed over.

    Raises:
        DataError: It cannot be read, or a line is no record.
    """
    with opened(file, gzipped if file.suffix == ".gz" else plain) as (stream, _):
        try:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield f"{file}:{number}", _record(file, number, line)
        except DAMAGE as error:
            raise DataError(file, 0, describe(error)) from error


def _record(file: Path, number: int, line: bytes) -> Row:
    try:
        found = json.loads(line)
    except ValueError as error:  # of Unicode, too
        raise DataError(file, number, f"is no JSON: {error}") from None
    except RecursionError:
        raise DataError(file, number, "has too many brackets inside of one another") from None
    if not isinstance(found, dict):
        raise DataError(file, number, f"must be an object, not a {type(found).__name__}")
    return found
