"""Writing token files block by block, into a folder that appears whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from mftrun.data.encoder import Encoded
from mftrun.data.sample import Origin
from mftrun.data.token_file import BAD, META, TOKENS, VERSION, TokenMeta, concatenated, schema
from mftrun.errors import DataError
from mftrun.files import whole_folder, write_json


class Block(NamedTuple):
    """Some samples on their way into a token file (S samples, N tokens, P spans).

    Attributes:
        ids: int32[N].
        lengths: int64[S].
        span_counts: int64[S].
        span_start: int32[P], from the sample's first token.
        span_length: int32[P].
        span_weight: float32[P].
        file: int32[S], into `files`.
        line: int64[S].
        files: Origin files of these samples.
    """

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    span_counts: npt.NDArray[np.int64]
    span_start: npt.NDArray[np.int32]
    span_length: npt.NDArray[np.int32]
    span_weight: npt.NDArray[np.float32]
    file: npt.NDArray[np.int32]
    line: npt.NDArray[np.int64]
    files: list[str]


def block(samples: Sequence[Encoded], origins: Sequence[Origin]) -> Block:
    """Packs encoded samples, each of at least one token; their first tokens are taken out of the targets.

    Args:
        samples: The samples.
        origins: Where each came from.
    """
    files = {path: number for number, path in enumerate(dict.fromkeys(origin.path for origin in origins))}
    lengths = np.array([len(sample.ids) for sample in samples], np.int64)
    assert (lengths > 0).all(), "a sample has tokens"
    ids = concatenated([sample.ids for sample in samples], np.int32)
    spans = _spans(concatenated([sample.weights for sample in samples], np.float32), lengths)
    places = [files[origin.path] for origin in origins]
    lines = [origin.line for origin in origins]
    return Block(ids, lengths, *spans, np.array(places, np.int32), np.array(lines, np.int64), list(files))


def _spans(weights: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]) -> tuple[Any, Any, Any, Any]:
    """Counts per sample, starts, lengths and weights of the longest runs of equal weights that are not 0."""
    begin = np.cumsum(lengths) - lengths
    weights = weights.copy()
    weights[begin] = 0  # nothing stands before the first token to predict it from; no run crosses it
    is_edge = np.ones(len(weights), np.bool_)
    is_edge[1:] = weights[1:] != weights[:-1]
    starts = np.flatnonzero(is_edge)
    sizes = np.diff(starts, append=len(weights))
    is_span = weights[starts] > 0
    starts, sizes = starts[is_span], sizes[is_span]
    sample = np.searchsorted(begin, starts, side="right") - 1
    counts = np.bincount(sample, minlength=len(lengths))
    return counts, (starts - begin[sample]).astype(np.int32), sizes.astype(np.int32), weights[starts]


@contextmanager
def token_writer(folder: Path) -> Iterator[TokenWriter]:
    """Opens a token file for writing; its folder appears when the block ends well, and not at all otherwise.

    Args:
        folder: Where it shall appear; an older one is replaced.

    Yields:
        The writer: blocks are appended, then it is finished.

    Raises:
        OSError: The folder cannot be written (read-only, disk full).
    """
    import pyarrow as pa

    with whole_folder(folder) as scratch:
        columns = schema()
        with (
            pa.OSFile(str(scratch / TOKENS), "wb") as sink,
            pa.ipc.new_file(sink, columns) as stream,
            (scratch / BAD).open("w", encoding="utf-8", errors="backslashreplace") as bad,
        ):
            writer = TokenWriter(stream, columns, bad)
            yield writer
        write_json(scratch / META, writer.page())


class TokenWriter:
    """Writes a token file block by block; made by `token_writer`.

    Args:
        stream: The Arrow writer.
        bad: Where bad entries are named, a line each.
        schema: Its schema.
    """

    def __init__(self, stream: Any, schema: Any, bad: TextIO) -> None:
        self._stream = stream
        self._schema = schema
        self._bad = bad
        self._files: dict[str, int] = {}
        self._about: dict[str, Any] = {}
        self._good = self._tokens = self._longest = 0
        self._content = hashlib.blake2b(digest_size=16)

    def append(self, part: Block) -> None:
        """Adds some samples, possibly none."""
        import pyarrow as pa

        if not len(part.lengths):
            return
        numbers = [self._files.setdefault(path, len(self._files)) for path in part.files]
        spans = (part.span_start, part.span_length, part.span_weight)
        columns = [_lists(part.lengths, part.ids), *(_lists(part.span_counts, values) for values in spans)]
        columns += [pa.array(np.array(numbers, np.int32)[part.file]), pa.array(part.line)]
        for values in (part.lengths, part.ids, part.span_counts, *spans, part.line):
            self._content.update(values.tobytes())
        self._stream.write_batch(pa.record_batch(columns, schema=self._schema))
        self._good += len(part.lengths)
        self._tokens += len(part.ids)
        self._longest = max(self._longest, int(part.lengths.max()))

    def leave_out(self, errors: Iterable[DataError]) -> None:
        """Names entries of the source that are not in the file."""
        self._bad.writelines(" ".join(str(error).split("\n")) + "\n" for error in errors)

    def finish(self, **about: Any) -> None:
        """Adds what the writer does not know itself: other attributes of `TokenMeta`."""
        self._about = about

    def page(self) -> dict[str, Any]:
        """What the file says of itself, as plain values."""
        meta = TokenMeta(
            content=self._content.hexdigest(),
            files=list(self._files),
            good=self._good,
            tokens=self._tokens,
            longest=self._longest,
            **self._about,
        )
        examples = [[error.path, error.line, error.message] for error in meta.bad_examples]
        plain: dict[str, Any] = {
            name: dict(getattr(meta, name)) for name in ("template", "formats", "unread")
        }
        plain["bad_examples"] = examples
        return {"version": VERSION, **_fields(meta), **plain}


def _fields(meta: TokenMeta) -> dict[str, Any]:
    return {name: getattr(meta, name) for name in TokenMeta.__dataclass_fields__}


def _lists(counts: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> Any:
    import pyarrow as pa

    assert len(values) < 2**31, "a block holds fewer tokens than its 32-bit places can tell apart"
    places = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    item = pa.field("item", pa.from_numpy_dtype(values.dtype), nullable=False)
    return pa.ListArray.from_arrays(pa.array(places), pa.array(values), type=pa.list_(item))
