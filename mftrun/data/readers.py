"""Kinds of files that hold samples, and how each is cut into chunks."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol

from mftrun.data.chunks import CHUNK_BYTES, LinesChunk, RefusedChunk, table_chunk
from mftrun.data.compression import DAMAGE, Opened, Unpack, describe, gzipped, opened, plain, zstandardized
from mftrun.data.json_values import NotJsonError, json_values
from mftrun.data.recognition import Recogniser
from mftrun.data.source import Chunk
from mftrun.errors import DataError

_MARKS = MappingProxyType(  # the first is the longer one of two that begin alike
    {
        "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
        "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    }
)


class Reader(Protocol):
    """A kind of file."""

    def chunks(self, file: Path, recogniser: Recogniser) -> Iterator[Chunk]:
        """Reads a file piece by piece; a file without a sample gives a chunk with that error.

        Raises:
            DataError: The file cannot be read, or is damaged from some place on.
        """


@dataclass(frozen=True)
class JsonLines:
    """An object per line; blank lines are passed over.

    Args:
        unpack: How the file is compressed.
        block: Bytes of content in a chunk, about.
    """

    unpack: Unpack
    block: int = CHUNK_BYTES

    def chunks(self, file: Path, recogniser: Recogniser) -> Iterator[Chunk]:
        """Reads blocks of whole lines."""
        number, is_blank, place = 1, True, 0
        with _text(file, self.unpack) as (stream, raw):
            while lines := self._lines(stream, file, number):
                is_blank = is_blank and lines.isspace()
                size, place = raw.tell() - place, raw.tell()
                yield LinesChunk(str(file), number, lines, size, recogniser)
                number += lines.count(b"\n")
        if is_blank:
            yield RefusedChunk(DataError(file, 0, "the file is empty"))

    def _lines(self, stream: BinaryIO, file: Path, number: int) -> bytes:
        try:
            lines = stream.read(self.block)
            # A line that spans blocks is read to its end, however long it is.
            return lines if not lines or lines.endswith(b"\n") else lines + stream.readline()
        except DAMAGE as error:
            place = f" (after line {number - 1:,} or later)" if number > 1 else ""
            raise DataError(file, 0, describe(error) + place) from error


@dataclass(frozen=True)
class JsonList:
    """A list of objects, or one object, or several one after the other; they are counted from 1.

    Args:
        unpack: How the file is compressed.
        block: Bytes of content in a chunk, about.
    """

    unpack: Unpack
    block: int = CHUNK_BYTES

    def chunks(self, file: Path, recogniser: Recogniser) -> Iterator[Chunk]:
        """Reads entries until they fill a block."""
        first, place = 1, 0
        with _text(file, self.unpack) as (stream, raw):
            for entries in _blocks(self._entries(stream, file), self.block):
                size, place = raw.tell() - place, raw.tell()
                yield LinesChunk(str(file), first, b"\n".join(entries), size, recogniser)
                first += len(entries)
        if first == 1:
            yield RefusedChunk(DataError(file, 0, "the file is empty"))

    def _entries(self, stream: BinaryIO, file: Path) -> Iterator[bytes]:
        number = 0
        try:
            for number, entry in enumerate(json_values(stream, self.block), start=1):  # noqa: B007
                yield entry
        except NotJsonError as error:
            raise DataError(file, number + 1, f"{error}; nothing after it can be read") from None
        except DAMAGE as error:
            place = f" (after entry {number:,})" if number else ""
            raise DataError(file, 0, describe(error) + place) from error


@dataclass(frozen=True)
class Parquet:
    """A row per sample; they are counted from 1.

    Args:
        block: Bytes of content in a chunk, about.
    """

    block: int = CHUNK_BYTES

    def chunks(self, file: Path, recogniser: Recogniser) -> Iterator[Chunk]:
        """Reads batches of rows, of the columns that some format knows."""
        with opened(file, plain) as (stream, _):  # says well why a file cannot be opened
            yield from self._chunks(file, stream, recogniser)

    def _chunks(self, file: Path, stream: BinaryIO, recogniser: Recogniser) -> Iterator[Chunk]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = 0
        try:
            table = pq.ParquetFile(stream)
            size = file.stat().st_size
            names = table.schema_arrow.names
            read = recogniser.columns(names)
            unread = frozenset(names).difference(read)
            for batch in self._batches(table, read):
                share = size * (rows + batch.num_rows) // table.metadata.num_rows
                share -= size * rows // table.metadata.num_rows
                part = pa.Table.from_batches([batch])
                yield table_chunk(str(file), rows + 1, part, share, recogniser, unread)
                rows += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            place = f" (after row {rows:,})" if rows else ""
            message = f"is no Parquet file, or is damaged{place}: {first_line(error)}"
            raise DataError(file, 0, message) from error
        if rows == 0:
            yield RefusedChunk(DataError(file, 0, "the file is empty"))

    def _batches(self, table: Any, columns: list[str]) -> Iterator[Any]:
        for group in range(table.num_row_groups):
            metadata = table.metadata.row_group(group)
            rows = max(1, self.block * metadata.num_rows // max(1, metadata.total_byte_size))
            yield from table.iter_batches(rows, [group], columns, use_threads=False)


READERS: Mapping[str, Reader] = MappingProxyType(
    {
        ".jsonl": JsonLines(plain),
        ".jsonl.gz": JsonLines(gzipped),
        ".jsonl.zst": JsonLines(zstandardized),
        ".json": JsonList(plain),
        ".json.gz": JsonList(gzipped),
        ".json.zst": JsonList(zstandardized),
        ".parquet": Parquet(),
    }
)
"""Readers by the ending of a file's name."""


def ending(file: Path) -> str | None:
    """The key of `READERS` that a file's name ends in."""
    return next((known for known in READERS if file.name.endswith(known)), None)


def first_line(error: BaseException) -> str:
    """What an exception of a library says, on one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _text(file: Path, unpack: Unpack) -> Iterator[Opened]:
    """Opens a file that should be UTF-8; refuses one that begins with the mark of another encoding."""
    with opened(file, unpack) as found:
        try:
            start = found.stream.peek(4)[:4]  # type: ignore[attr-defined]
        except DAMAGE as error:
            raise DataError(file, 0, describe(error)) from error
        for encoding, marks in _MARKS.items():
            if start.startswith(marks):
                raise DataError(
                    file, 0, f"is {encoding}; convert it to UTF-8: iconv -f {encoding} -t UTF-8 FILE > NEW"
                )
        yield found


def _blocks(entries: Iterator[bytes], block: int) -> Iterator[list[bytes]]:
    """Groups entries, each group as soon as it holds ``block`` bytes."""
    for entry in entries:
        group, size = [entry], len(entry)
        while size < block and (more := next(entries, None)) is not None:
            group.append(more)
            size += len(more)
        yield group
