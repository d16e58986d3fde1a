"""Files as streams of bytes, compressed or not."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mftrun.errors import DataError

_BLOCK = 1 << 16  # compressed bytes at a time: what a small piece of a file swells to is bounded in practice


class Opened(NamedTuple):
    """An open file.

    Attributes:
        stream: Its plain content; reading raises OSError, EOFError or zlib.error where it is damaged.
        raw: The file itself; its position tells how much of it has been read.
    """

    stream: BinaryIO
    raw: BinaryIO


Unpack = Callable[[BinaryIO], BinaryIO]
"""From the stream of a file to the stream of its content."""

DAMAGE = (OSError, EOFError, zlib.error)
"""What reading a damaged file raises."""


@contextmanager
def opened(file: Path, unpack: Unpack) -> Iterator[Opened]:
    """Opens a file.

    Raises:
        DataError: It cannot be opened, or is not there but for a pointer of Git LFS.
    """
    try:
        raw = file.open("rb")
    except OSError as error:
        raise DataError(file, 0, f"cannot be read: {error.strerror}") from error
    with raw:
        if raw.peek(_BLOCK).startswith(b"version https://git-lfs.github.com/spec/"):
            raise DataError(file, 0, "only a pointer of Git LFS is here; fetch the file with `git lfs pull`")
        yield Opened(unpack(raw), raw)


def plain(raw: BinaryIO) -> BinaryIO:
    """The content of a file that is not compressed."""
    return raw


def gzipped(raw: BinaryIO) -> BinaryIO:
    """The content of a gzip file."""
    return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]


def zstandardized(raw: BinaryIO) -> BinaryIO:
    """The content of a Zstandard file, of one or several frames."""
    return io.BufferedReader(_ZstdStream(raw))


def describe(error: BaseException) -> str:
    """What became of a file, from one of `DAMAGE`."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"is damaged or cut short: {error}"


class _ZstdStream(io.RawIOBase):
    """Decompresses piece by piece; unlike zstandard's own reader it tells when the end is missing."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__()
        self._raw = raw
        self._rest = memoryview(b"")
        self._input = b""
        self._frame: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            if not (block := self._input or self._raw.read(_BLOCK)):
                if self._frame is not None:
                    raise EOFError("the last frame is not complete")
                return 0
            self._rest = memoryview(self._decompressed(block))
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def _decompressed(self, block: bytes) -> bytes:
        import zstandard

        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            content: bytes = self._frame.decompress(block)
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        self._input = b""
        if self._frame.eof:
            self._input, self._frame = self._frame.unused_data, None
        return content
