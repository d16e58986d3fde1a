"""Blocks of code in an answer that talks."""

from __future__ import annotations

import re

FENCE = "```"
_BLOCK = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)


def fenced(text: str) -> list[str]:
    """The contents of all fenced blocks, in order; the last one may lack its end."""
    return [found[1] for found in _BLOCK.finditer(text)]
