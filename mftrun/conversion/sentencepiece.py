"""SentencePiece's model files, read without the package (its schema: sentencepiece_model.proto)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mftrun.errors import DataError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_UNIGRAM, _BPE = 1, 2
_FIXED = MappingProxyType({1: 8, 5: 4})  # bytes of the wire types with a fixed width


class Piece(NamedTuple):
    """An entry of the vocabulary; its id is its place."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePieceModel:
    """What a model file says of how text is cut.

    Args:
        pieces: The vocabulary.
        bpe: Whether pairs are joined by score; otherwise the most probable pieces are taken (unigram).
        charsmap: Compiled rules that rewrite characters; mostly none.
        dummy_prefix: Whether a space is put in front of every text.
        remove_spaces: Whether spaces around a text, and repeated ones, are removed.
    """

    pieces: tuple[Piece, ...]
    bpe: bool
    charsmap: bytes
    dummy_prefix: bool
    remove_spaces: bool

    def first(self, kind: int) -> str | None:
        """The first entry of a kind."""
        return next((piece.text for piece in self.pieces if piece.kind == kind), None)


def read_model(file: Path) -> SentencePieceModel:
    """Reads a `tokenizer.model`.

    Raises:
        DataError: It is no SentencePiece model, or one of words or characters.
    """
    try:
        fields = list(_fields(file.read_bytes()))
        pieces = tuple(_piece(value) for number, value in fields if number == 1)
        trainer, normalizer = (_last(fields, number) for number in (2, 3))
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise DataError(file, 0, "is no SentencePiece model") from error
    if not pieces:
        raise DataError(file, 0, "is no SentencePiece model: it has no pieces")
    kind = trainer.get(3, _UNIGRAM)
    if kind not in (_UNIGRAM, _BPE):
        raise DataError(
            file, 0, "is a SentencePiece model of words or characters; only BPE and unigram are known"
        )
    charsmap = normalizer.get(2, b"")
    assert isinstance(charsmap, bytes)
    return SentencePieceModel(
        pieces, kind == _BPE, charsmap, bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1))
    )


def _piece(data: int | bytes) -> Piece:
    fields = dict(_fields(_bytes(data)))
    score = struct.unpack("<f", _bytes(fields.get(2, bytes(4))))[0]
    kind = fields.get(3, NORMAL)
    return Piece(_bytes(fields[1]).decode(), score, int(kind) if isinstance(kind, int) else 0)


def _last(fields: list[tuple[int, int | bytes]], number: int) -> Mapping[int, int | bytes]:
    found = [value for key, value in fields if key == number]
    return dict(_fields(_bytes(found[-1]))) if found else {}


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a number where bytes should be")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protobuf message (wire format), in order."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        if tag & 7 == 0:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        length, place = (_FIXED[tag & 7], place) if tag & 7 in _FIXED else _length(data, tag, place)
        if place + length > len(data):
            raise ValueError("it ends too early")
        yield tag >> 3, data[place : place + length]
        place += length


def _length(data: bytes, tag: int, place: int) -> tuple[int, int]:
    if tag & 7 != 2:
        raise ValueError("an unknown wire type")
    return _varint(data, place)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
