"""From a source to a token file: parsed and encoded chunk by chunk, in worker processes where it pays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mftrun.data.encoder import Encoded
from mftrun.data.progress import progress
from mftrun.data.sample import Sample
from mftrun.data.scan import Reading
from mftrun.data.source import Chunk, Source
from mftrun.data.token_file import TokenFile
from mftrun.data.token_writer import Block, TokenWriter, block, token_writer
from mftrun.data.workers import Workers, using
from mftrun.errors import DataError

if TYPE_CHECKING:
    from mftrun.data.template import ConversationEncoder

_COST = 8  # of encoding a chunk, where parsing it alone costs 1
_BATCH = 512  # samples encoded together: more take more memory and no less time


@dataclass(frozen=True, eq=False)
class Chosen:
    """Some samples of a source.

    Attributes:
        mask: Which of the good samples, in the order of the source, bool[good].
        counts: Good samples of each chunk, as `scan` found them.
    """

    mask: npt.NDArray[np.bool_]
    counts: list[int]


class Identity(NamedTuple):
    """What a token file is made from.

    Attributes:
        fingerprint: A digest of everything.
        tokenizer: Digest of the tokenizer.
        template: Fingerprint of the template.
    """

    fingerprint: str = ""
    tokenizer: str = ""
    template: Mapping[str, Any] = MappingProxyType({})


UNKNOWN = Identity()
"""Of a token file that nobody asks what it was made from."""


def tokenize(
    source: Source,
    encoder: ConversationEncoder,
    folder: Path,
    *,
    workers: Workers | int,
    chosen: Chosen | None = None,
    identity: Identity = UNKNOWN,
    title: str = "",
) -> TokenFile:
    """Encodes the samples of a source into a token file, in their order, whatever the number of workers.

    Samples that the template cannot render are counted and named as bad ones.

    Args:
        source: The source.
        encoder: The template bound to a tokenizer; picklable.
        folder: Where the token file shall appear, whole or not at all.
        workers: Processes for large sources, or at most how many there shall be.
        chosen: Which samples; None takes all.
        identity: What the file says it was made from.
        title: What the progress bar says; by default, where the source is.

    Raises:
        DataError: The source cannot be read, or has changed since it was scanned.
        OSError: The folder cannot be written.
        MftrunError: A worker was killed.
    """
    found = _Found()
    with (
        token_writer(folder) as writer,
        using(workers) as processes,
        progress(title or f"tokenizing {source.location}", source.size()) as advance,
        processes.results(_Work(encoder), _pieces(source, chosen), _COST) as parts,
    ):
        for part in parts:
            found.add(part, writer)
            advance(part.size)
        if chosen is not None and len(found.reading.counts) != len(chosen.counts):
            raise _changed(source.location)
        found.finish(writer, identity)
    return TokenFile.open(folder)


class _Piece(NamedTuple):
    """A chunk, and which of its samples are wanted; None wants all."""

    chunk: Chunk
    mask: npt.NDArray[np.bool_] | None
    location: str


def _pieces(source: Source, chosen: Chosen | None) -> Iterator[_Piece]:
    if chosen is None:
        yield from (_Piece(chunk, None, source.location) for chunk in source.chunks())
        return
    begin = 0
    for number, chunk in enumerate(source.chunks()):
        if number == len(chosen.counts):
            raise _changed(source.location)
        end = begin + chosen.counts[number]
        yield _Piece(chunk, chosen.mask[begin:end], source.location)
        begin = end


def _changed(location: str) -> DataError:
    return DataError(location, 0, "changed while it was read; start again")


class _Part(NamedTuple):
    """What became of a chunk."""

    block: Block
    reading: Reading
    unrendered: int
    size: int


@dataclass(frozen=True)
class _Work:
    """Parses and encodes a chunk."""

    encoder: ConversationEncoder

    def __call__(self, piece: _Piece) -> _Part:
        reading = Reading()
        samples = _wanted(piece, reading)
        encoded: list[Encoded] = []
        rendered: list[Sample] = []
        for begin in range(0, len(samples), _BATCH):
            some = samples[begin : begin + _BATCH]
            for sample, item in zip(some, self.encoder.encode_all(some), strict=True):
                if (wrong := _problem(item)) is not None:
                    reading.add_bad(DataError(sample.origin.path, sample.origin.line, wrong))
                    continue
                assert isinstance(item, Encoded)
                encoded.append(item)
                rendered.append(sample)
                reading.formats[sample.format] += 1
                reading.unread.update(sample.unread)
        unrendered = len(samples) - len(encoded)
        origins = [sample.origin for sample in rendered]
        return _Part(block(encoded, origins), reading, unrendered, piece.chunk.size)


def _wanted(piece: _Piece, reading: Reading) -> list[Sample]:
    """The samples of a chunk that are wanted; its bad entries are counted."""
    samples: list[Sample] = []
    for item in piece.chunk.items():
        if isinstance(item, Sample):
            samples.append(item)
        else:
            reading.add_bad(item)
    reading.counts = [len(samples)]
    if piece.mask is None:
        return samples
    if len(piece.mask) != len(samples):
        raise _changed(piece.location)
    return [sample for sample, wanted in zip(samples, piece.mask.tolist(), strict=True) if wanted]


def _problem(item: Encoded | str) -> str | None:
    if isinstance(item, str):
        return item
    return None if len(item.ids) else "the sample gives no token"


@dataclass
class _Found:
    """What all chunks together gave."""

    reading: Reading = field(default_factory=Reading)
    encoded: int = 0
    unrendered: int = 0

    def add(self, part: _Part, writer: TokenWriter) -> None:
        writer.append(part.block)
        writer.leave_out(part.reading.errors)
        self.encoded += len(part.block.lengths)
        self.reading.add(part.reading)
        self.unrendered += part.unrendered

    def finish(self, writer: TokenWriter, identity: Identity) -> None:
        writer.finish(
            **identity._asdict(),
            formats=dict(self.reading.formats),
            unread=dict(self.reading.unread),
            bad=self.reading.bad,
            unrendered=self.unrendered,
            unused=self.reading.good - self.encoded - self.unrendered,
            bad_examples=self.reading.examples,
        )
