"""The values of a JSON file one after the other, in memory bounded by the largest of them."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import BinaryIO

_MARGIN = 16  # an error so close to the end of what has been read may be a value that goes on


class NotJsonError(Exception):
    """Why the file cannot be read further."""


def json_values(stream: BinaryIO, block: int) -> Iterator[bytes]:
    """The elements of the list that a file holds, or its values: one, or several with white space between.

    Args:
        stream: The file, UTF-8.
        block: Bytes to read at a time.

    Yields:
        Each value as it is written, on one line.

    Raises:
        NotJsonError: The file is damaged at this place, or ends too soon.
    """
    window = _Window(stream, block)
    is_list = window.next_character() == "["
    if is_list:
        window.skip()
    is_first = True
    while (character := window.next_character()) not in ("", "]"):
        if is_list and not is_first:
            if character != ",":
                raise window.wrong("Expecting ',' or ']'")
            window.skip()
        yield window.value()
        is_first = False
    if is_list != (character == "]"):
        raise window.wrong("the list does not end" if is_list else "']' without a list")
    if is_list:
        window.skip()
        if window.next_character():
            raise window.wrong("more after the end of the list; name a file of JSON lines *.jsonl")


class _Window:
    """The part of a file that is being read."""

    def __init__(self, stream: BinaryIO, block: int) -> None:
        self._stream = stream
        self._block = block
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._parse = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._before = 0  # characters that have been dropped
        self._is_whole = False

    def next_character(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            while self._at < len(self._text):
                if not (character := self._text[self._at]).isspace():
                    return character
                self._at += 1
            if self._is_whole:
                return ""
            self._read_on()

    def skip(self) -> None:
        """Passes over a character."""
        self._at += 1

    def value(self) -> bytes:
        """The next value."""
        self.next_character()
        while (end := self._end_of_value()) is None:
            self._read_on()
        text, self._at = self._text[self._at : end], end
        # A newline inside of a string is written as an escape: any other is white space between tokens.
        return text.replace("\n", " ").replace("\r", " ").encode()

    def wrong(self, message: str, at: int | None = None) -> NotJsonError:
        """The error for a place in the text; the next one unless it is given."""
        place = self._before + (self._at if at is None else at) + 1
        return NotJsonError(f"not JSON: {message} at character {place:,}")

    def _end_of_value(self) -> int | None:
        try:
            _, end = self._parse(self._text, self._at)
        except json.JSONDecodeError as error:
            may_go_on = error.msg.startswith("Unterminated") or error.pos + _MARGIN > len(self._text)
            if self._is_whole or not may_go_on:
                raise self.wrong(error.msg, error.pos) from None
            return None
        except (ValueError, RecursionError) as error:
            raise self.wrong(str(error)) from None
        return end if end < len(self._text) or self._is_whole else None

    def _read_on(self) -> None:
        # A value longer than the window doubles it, lest its beginning be parsed again for every block.
        block = self._stream.read(max(self._block, len(self._text) - self._at))
        self._is_whole = not block
        try:
            text = self._decoder.decode(block, final=self._is_whole)
        except UnicodeDecodeError as error:
            raise NotJsonError(f"not UTF-8: byte {error.object[error.start]:#04x} {self._near()}") from None
        self._before += self._at
        self._text, self._at = self._text[self._at :] + text, 0

    def _near(self) -> str:
        return f"after character {self._before + len(self._text):,}"
