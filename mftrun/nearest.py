"""Suggestions for names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "metric_for_best": "evaluation.early_stopping.metric",
        "metric_for_best_model": "evaluation.early_stopping.metric",
    }
)


def meant(name: str) -> str | None:
    """A message for a key that is called otherwise here than by others, if it is one of these."""
    return f"there is no such key; use {_ELSEWHERE[name]}" if name in _ELSEWHERE else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a mistyped one most likely means, if any is close."""
    names = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return names[found[0]] if found else None


def unknown(name: str, known: Iterable[str], problem: str, prefix: str = "") -> str:
    """A message for an unknown name: the problem, then the nearest known name, else all of them.

    Args:
        name: What the user wrote.
        known: What exists.
        problem: What is wrong, without a final stop.
        prefix: Dotted path in front of the known names.
    """
    known = sorted(known)
    lead = f"{prefix}." if prefix else ""
    if (close := nearest(name, known)) is not None:
        return f"{problem}; did you mean {lead}{close}?"
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"{problem}; known: {shown}" if known else f"{problem}; nothing is known here"
