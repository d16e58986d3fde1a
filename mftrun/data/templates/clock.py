"""The date that chat templates are told, which does not move with the day of tokenizing."""

from __future__ import annotations

from datetime import datetime

DEFAULT = datetime(2024, 7, 26)
"""What Llama 3.1's template falls back to."""

OTHER = datetime(2001, 2, 3, 4, 5, 6)
"""A moment that differs from it in every respect."""

_CODES = "aAbBcCdDeFfgGhHIjklmMnpPrRStTuUVwWxXyYzZ%"
_UNPADDED = "deHIjlmMSUWyV"


def is_read(text: str) -> bool:
    """Whether a chat template may ask for the date or the time."""
    return "strftime_now" in text


def stopped(text: str, moment: datetime) -> str:
    """A chat template with a ``strftime_now`` of its own, which always tells the same moment.

    Args:
        text: The chat template.
        moment: What it is told.

    Returns:
        The template, as it is if it never asks. What it renders is the same in all else.
    """
    # Functions cannot be handed to a template, as only plain values reach it.
    return _macro(moment) + text if is_read(text) else text


def _macro(moment: datetime) -> str:
    codes = [*(f"%{code}" for code in _CODES), *(f"%-{code}" for code in _UNPADDED)]
    told = ", ".join(f"{code!r}: {moment.strftime(code)!a}" for code in codes)
    lines = [
        "{%- macro strftime_now(format) -%}",
        f"{{%- set told = {{{told}}} -%}}",
        "{%- set open = namespace(code='') -%}",
        "{%- for letter in format -%}",
        "{%- set open.code = open.code + letter -%}",
        "{%- if open.code in told -%}{{ told[open.code] }}{%- set open.code = '' -%}",
        "{%- elif open.code[0] != '%' -%}{{ letter }}{%- set open.code = '' -%}",
        "{%- endif -%}",
        "{%- endfor -%}",
        "{{ open.code }}",
        # The newline goes with the tag; the text behind begins a line, as it did before.
        "{%- endmacro %}\n",
    ]
    return "".join(lines)
