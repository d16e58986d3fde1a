"""Pieces of sources, and how each is parsed into samples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mftrun.data.fields import BadSampleError, kind
from mftrun.data.recognition import Recogniser
from mftrun.data.sample import Origin, Sample, problem
from mftrun.errors import DataError

if TYPE_CHECKING:
    import pyarrow

CHUNK_BYTES = 1 << 20
"""About how much text a chunk holds: small against memory, large against the cost of handing it over."""


@dataclass(frozen=True)
class LinesChunk:
    """Whole lines of JSON.

    Args:
        path: Their file.
        first: The number of the first line.
        data: The lines as they are in the file; the last needs no newline.
        size: See `Chunk`.
        recogniser: Makes messages of their records.
    """

    path: str
    first: int
    data: bytes
    size: int
    recogniser: Recogniser

    def items(self) -> Iterator[Sample | DataError]:
        """Parses all lines but blank ones."""
        for number, line in enumerate(self.data.split(b"\n"), start=self.first):
            if line and not line.isspace():
                yield _from_line(line, Origin(self.path, number), self.recogniser)


@dataclass(frozen=True)
class TableChunk:
    """Rows of a table.

    Args:
        path: Where the table is.
        first: The number of the first row, from 1.
        data: The rows as an Arrow IPC stream.
        size: See `Chunk`.
        recogniser: Makes messages of their records.
        unread: Columns of the table that are not in the data.
    """

    path: str
    first: int
    data: bytes
    size: int
    recogniser: Recogniser
    unread: frozenset[str] = frozenset()

    def items(self) -> Iterator[Sample | DataError]:
        """Parses all rows; nulls inside of values, which fill the gaps of a table, count as absent."""
        import pyarrow as pa

        rows = pa.ipc.open_stream(self.data).read_all().to_pylist()
        for number, row in enumerate(rows, start=self.first):
            record = {key: _without_nulls(value) for key, value in row.items()}
            yield from_record(record, Origin(self.path, number), self.recogniser, self.unread)


@dataclass(frozen=True)
class MadeChunk:
    """Entries that have been parsed already."""

    entries: tuple[Sample | DataError, ...]

    @property
    def size(self) -> int:
        """How many."""
        return len(self.entries)

    def items(self) -> Iterator[Sample | DataError]:
        """Gives the entries."""
        yield from self.entries


@dataclass(frozen=True)
class RefusedChunk:
    """A whole file that holds no sample."""

    error: DataError
    size: int = 0

    def items(self) -> Iterator[Sample | DataError]:
        """Gives the error."""
        yield self.error


def table_chunk(
    path: str,
    first: int,
    rows: pyarrow.Table,
    size: int,
    recogniser: Recogniser,
    unread: frozenset[str] = frozenset(),
) -> TableChunk:
    """Packs the rows of an Arrow table (see `TableChunk`)."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, rows.schema
    ) as stream:  # writes these rows alone, whatever they are cut from
        stream.write(rows)
    return TableChunk(path, first, sink.getvalue().to_pybytes(), size, recogniser, unread)


def from_record(
    record: Mapping[str, Any],
    origin: Origin,
    recogniser: Recogniser,
    unread: frozenset[str] = frozenset(),
) -> Sample | DataError:
    """The sample that a record holds, or what is wrong with it.

    Args:
        record: Its keys and values.
        origin: Where it is.
        recogniser: Makes messages of it.
        unread: Keys that have been left out of it.
    """
    try:
        messages, tools, name, beside = recogniser.parse(record)
    except BadSampleError as error:
        return DataError(origin.path, origin.line, str(error))
    if (wrong := problem(messages)) is not None:
        return DataError(origin.path, origin.line, wrong)
    return Sample(messages, origin, tools, name, unread | beside if unread else beside)


def _from_line(line: bytes, origin: Origin, recogniser: Recogniser) -> Sample | DataError:
    try:
        record = _json_object(line)
    except BadSampleError as error:
        return DataError(origin.path, origin.line, str(error))
    return from_record(record, origin, recogniser)


def _json_object(line: bytes) -> Mapping[str, Any]:
    if (at := line.find(b"\0")) >= 0:
        raise BadSampleError(f"a NUL byte at byte {at + 1}; the file is damaged, or UTF-16 and not UTF-8")
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadSampleError(f"not UTF-8: byte {line[error.start]:#04x} at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise BadSampleError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, a thousand brackets
        raise BadSampleError(f"not readable as JSON: {error}") from None
    if not isinstance(record, dict):
        hint = "; a file that is one list is named *.json" if isinstance(record, list) else ""
        raise BadSampleError(f"holds {kind(record)}, not an object with the keys of a format{hint}")
    return record


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
