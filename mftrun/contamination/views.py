"""What of a text is compared: its words, with or without its comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_WORD = re.compile(r"\w+|[^\w\s]")
# Ends are looked for so far, lest a text that begins many comments and ends none takes very long.
_FAR = "{0,2000}?"
_COMMENTS = re.compile(
    rf'"""[\s\S]{_FAR}"""|\'\'\'[\s\S]{_FAR}\'\'\'|/\*[\s\S]{_FAR}\*/|(?://|#)[^\n]*',
)
_MARKS = re.compile(r'^[ \t]*(?:/?\*+/?|//+|#+)|\*+/[ \t]*$|"""|\'\'\'', re.MULTILINE)


@dataclass(frozen=True)
class View:
    """A way to look at a text. Words are runs of letters, digits and ``_``; any other sign is a word, too.

    White space and upper or lower case make no difference.

    Args:
        passed_over: What counts as white space.
    """

    passed_over: re.Pattern[str]

    def words(self, text: str) -> list[str]:
        """The words of a text, in lower case."""
        return _WORD.findall(self._seen(text).lower())

    def piece(self, text: str, first: int, last: int) -> str:
        """The part of a text from one word to another, as it was written, on one line.

        Args:
            text: The text.
            first: Number of the first word, from 0.
            last: Number of the last word.
        """
        seen = self._seen(text)
        # A few letters take more room in lower case: places are those of the text they were looked up in.
        shown = seen if len(seen.lower()) == len(seen) else seen.lower()
        spans = list(_spans(shown.lower(), last))
        return " ".join(shown[spans[first][0] : spans[last][1]].split())

    def _seen(self, text: str) -> str:
        return self.passed_over.sub(" ", text)


def _spans(text: str, last: int) -> Iterator[tuple[int, int]]:
    for number, word in enumerate(_WORD.finditer(text)):
        yield word.span()
        if number == last:
            return


PROSE = View(_MARKS)
"""All but the marks of comments: one docstring is the same in all languages."""

CODE = View(_COMMENTS)
"""All but comments and docstrings: a program is the same with them and without."""
