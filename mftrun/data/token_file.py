"""Tokenized samples of one source on disk: an Arrow file that is mapped into memory, and a page about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mftrun.data.sample import Origin
from mftrun.errors import DataError

TOKENS, META, BAD = "tokens.arrow", "meta.json", "bad.txt"

VERSION = 1
LISTS = ("input_ids", "target_start", "target_length", "target_weight")


@dataclass(frozen=True)
class TokenMeta:
    """What a token file says of itself.

    Attributes:
        fingerprint: A digest of what it was made from.
        content: A digest of its samples.
        tokenizer: Digest of the tokenizer.
        template: Fingerprint of the template.
        files: Origin files.
        formats: How many samples were written in each format.
        unread: Keys of the source that nothing reads, and how many samples have them.
        good: Samples in the file.
        bad: Entries of the source that are not in the file, as they are no samples or could not be rendered.
        unrendered: Those of them that the template could not render.
        unused: Samples of the source that are not in the file because others were chosen.
        bad_examples: The first few of them.
        tokens: Tokens of all samples.
        longest: Tokens of the longest sample.
    """

    fingerprint: str = ""
    content: str = ""
    tokenizer: str = ""
    template: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[str] = ()
    formats: Mapping[str, int] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict)
    good: int = 0
    bad: int = 0
    unrendered: int = 0
    unused: int = 0
    bad_examples: Sequence[DataError] = ()
    tokens: int = 0
    longest: int = 0


@dataclass(frozen=True, eq=False)
class TokenFile:
    """Tokenized samples (S samples, P spans of targets), whole and untouched by any setting of a run.

    Attributes:
        path: The Arrow file.
        values: int32 view of the whole file, mapped; token j of sample s is ``values[first[s] + j]``.
        first: int64[S].
        lengths: int64[S], tokens of each sample, at least 1.
        span_ptr: int64[S + 1]; the targets of sample s are spans ``span_ptr[s]:span_ptr[s + 1]``.
        span_start: int32[P], from the sample's first token; never 0, as nothing would predict it.
        span_length: int32[P].
        span_weight: float32[P], how many times each token of the span counts.
        origin_file: int32[S], into ``meta.files``.
        origin_line: int64[S], from 1; 0 when made.
        meta: What the file says of itself.
    """

    path: Path
    values: npt.NDArray[np.int32]
    first: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    span_ptr: npt.NDArray[np.int64]
    span_start: npt.NDArray[np.int32]
    span_length: npt.NDArray[np.int32]
    span_weight: npt.NDArray[np.float32]
    origin_file: npt.NDArray[np.int32]
    origin_line: npt.NDArray[np.int64]
    meta: TokenMeta

    @property
    def folder(self) -> Path:
        """The folder that holds the file and its page."""
        return self.path.parent

    @property
    def num_samples(self) -> int:
        """Number of samples S."""
        return len(self.lengths)

    def ids(self, sample: int) -> npt.NDArray[np.int32]:
        """The tokens of one sample, int32[n]."""
        first = self.first[sample]
        return self.values[first : first + self.lengths[sample]]

    def weights(self, sample: int) -> npt.NDArray[np.float32]:
        """How many times each token of one sample counts, float32[n]."""
        return token_weights(self, sample)

    def bad_lines(self) -> Iterator[str]:
        """All entries of the source that are not in the file, as ``file:line: what is wrong``."""
        with (self.folder / BAD).open(encoding="utf-8") as stream:
            yield from (line.rstrip("\n") for line in stream)

    def origin(self, sample: int) -> Origin:
        """The file and line that one sample came from."""
        return Origin(self.meta.files[self.origin_file[sample]], int(self.origin_line[sample]))

    @classmethod
    def open(cls, folder: Path) -> TokenFile:
        """Maps a token file into memory, read-only; its tokens are not read.

        Args:
            folder: What `token_writer` wrote.

        Raises:
            DataError: None is there, or it is damaged.
        """
        meta = read_meta(folder)
        path = folder / TOKENS
        arrays = _arrays(path)
        values = np.memmap(path, dtype="<i4", mode="r", shape=(path.stat().st_size // 4,))
        found = cls(path, values, meta=meta, **arrays)
        _check(found)
        return found


class Spanned(Protocol):
    """Samples with spans of targets: see the attributes of `TokenFile`."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]: ...

    @property
    def span_ptr(self) -> npt.NDArray[np.int64]: ...

    @property
    def span_start(self) -> npt.NDArray[np.int32]: ...

    @property
    def span_length(self) -> npt.NDArray[np.int32]: ...

    @property
    def span_weight(self) -> npt.NDArray[np.float32]: ...


def token_weights(samples: Spanned, sample: int) -> npt.NDArray[np.float32]:
    """How many times each token of one sample counts, float32[n]."""
    weights = np.zeros(samples.lengths[sample], np.float32)
    for span in range(samples.span_ptr[sample], samples.span_ptr[sample + 1]):
        start = samples.span_start[span]
        weights[start : start + samples.span_length[span]] = samples.span_weight[span]
    return weights


def read_meta(folder: Path) -> TokenMeta:
    """What a token file says of itself, without opening it.

    Raises:
        DataError: It is no token file.
    """
    try:
        page: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        version = page.pop("version")
        if version != VERSION:
            raise DataError(folder, 0, f"tokens of version {version}, not {VERSION}; {_AGAIN}")
        examples = [DataError(*example) for example in page.pop("bad_examples")]
        return TokenMeta(**page, bad_examples=examples)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(folder, 0, f"no readable tokens here ({error}); {_AGAIN}") from error


_AGAIN = "delete this folder, and start again to tokenize anew"


def schema() -> Any:
    """The columns of a token file, for pyarrow."""
    import pyarrow as pa

    whole = pa.list_(pa.field("item", pa.int32(), nullable=False))
    number = pa.list_(pa.field("item", pa.float32(), nullable=False))
    types = dict.fromkeys(LISTS, whole) | {"target_weight": number}
    types |= {"file": pa.int32(), "line": pa.int64()}
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])


def concatenated(arrays: Sequence[npt.NDArray[Any]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Arrays, possibly none, as one of a type."""
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype, copy=False)


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as mapped:
            base = mapped.read_buffer(mapped.size()).address
            reader = pa.ipc.open_file(mapped)
            if reader.schema != schema():
                raise DataError(path.parent, 0, f"the columns are not those of a token file; {_AGAIN}")
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            return _collected(batches, base)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, str(error)) from error


def _collected(batches: Sequence[Any], base: int) -> dict[str, npt.NDArray[Any]]:
    """The columns of all batches, copied, but for the tokens: of them, the places in the mapped file."""
    first, lengths, counts = [], [], []
    spans: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in LISTS[1:]}
    plain: dict[str, list[npt.NDArray[Any]]] = {"file": [], "line": []}
    for batch in batches:
        tokens = batch.column("input_ids")
        places = tokens.offsets.to_numpy().astype(np.int64)
        away = tokens.values.buffers()[1].address - base
        assert away % 4 == 0, "Arrow aligns its buffers"
        first.append(places[:-1] + away // 4)
        lengths.append(np.diff(places))
        counts.append(np.diff(batch.column("target_start").offsets.to_numpy()))
        for name, parts in spans.items():
            parts.append(batch.column(name).values.to_numpy())
        for name, parts in plain.items():
            parts.append(batch.column(name).to_numpy())
    return {
        "first": concatenated(first, np.int64),
        "lengths": concatenated(lengths, np.int64),
        "span_ptr": np.concatenate([[0], np.cumsum(concatenated(counts, np.int64))]),
        "span_start": concatenated(spans["target_start"], np.int32),
        "span_length": concatenated(spans["target_length"], np.int32),
        "span_weight": concatenated(spans["target_weight"], np.float32),
        "origin_file": concatenated(plain["file"], np.int32),
        "origin_line": concatenated(plain["line"], np.int64),
    }


def _check(found: TokenFile) -> None:
    """Raises DataError where the columns contradict each other or the page."""
    meta, spans = found.meta, len(found.span_start)
    if found.num_samples != meta.good or found.lengths.sum() != meta.tokens:
        raise _damaged(found.path, f"it holds {found.num_samples:,} of {meta.good:,} samples")
    sizes_agree = found.span_ptr[-1] == spans == len(found.span_length) == len(found.span_weight)
    if not sizes_agree or (np.diff(found.span_ptr) < 0).any() or (found.lengths <= 0).any():
        raise _damaged(found.path, "its lists are not in order")
    end = (found.first + found.lengths).max(initial=0)
    owner_length = np.repeat(found.lengths, np.diff(found.span_ptr))
    is_inside = (found.span_start >= 1) & (found.span_start + found.span_length <= owner_length)
    is_known = (found.origin_file >= 0) & (found.origin_file < len(meta.files))
    if found.first.min(initial=0) < 0 or end > len(found.values) or not is_inside.all() or not is_known.all():
        raise _damaged(found.path, "its numbers point outside")


def _damaged(path: Path, why: str) -> DataError:
    return DataError(path.parent, 0, f"the tokens are damaged ({why}); {_AGAIN}")
