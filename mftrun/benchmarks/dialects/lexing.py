"""Texts and comments of programs, found in one pass.

Where an end is missing, a text goes on to the end of its line, and a comment to the end of the program: no
pattern looks in vain for the same end again and again.
"""

from __future__ import annotations

import re

_TEXT = r'"(?:\\.|[^"\\\n])*+"?'
_ONE_CHARACTER = r"'(?:\\[^\n][^'\n]{0,8}|[^'\\\n])'"  # an apostrophe of Rust's lifetimes has no second one
_APOSTROPHES = r"'(?:\\.|[^'\\\n])*+'?"
_RAW = r"`[^`]*+`?"
_COMMENT = r"//[^\n]*+|/\*(?:[^*]|\*(?!/))*+(?:\*/)?"

BRACKETED = re.compile(rf"{_TEXT}|{_ONE_CHARACTER}|(?P<comment>{_COMMENT})", re.DOTALL)
"""Languages with C's comments."""

GO = re.compile(rf"(?P<text>{_TEXT}|{_APOSTROPHES}|{_RAW})|(?P<comment>{_COMMENT})", re.DOTALL)

PYTHON = re.compile(rf"{_TEXT}|{_APOSTROPHES}|(?P<comment>#[^\n]*+)", re.DOTALL)


def without(code: str, lexed: re.Pattern[str], *kinds: str) -> str:
    """Code with blanks for what is of some kinds; every line break and place stays.

    Args:
        code: A program.
        lexed: What its texts and comments look like.
        kinds: Names of groups of that.
    """

    def blank(found: re.Match[str]) -> str:
        return re.sub(r"\S", " ", found[0]) if found.lastgroup in kinds else found[0]

    return lexed.sub(blank, code)
