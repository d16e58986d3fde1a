"""The word that a driver says once the tests beside it have come to their end."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from mftrun.sandbox.base import End, Outcome


@cache
def driver(name: str) -> str:
    """Text of a driver.

    Args:
        name: Its file in the folder of drivers.
    """
    return (Path(__file__).with_name("drivers") / name).read_text(encoding="utf-8")


def mark(word: str) -> str:
    """A name that a program cannot know either, and that does not give the word away."""
    return hashlib.sha256(f"mark {word}".encode()).hexdigest()[:32]


def has_said(outcome: Outcome, word: str) -> bool:
    """Whether a command came to a good end, and the word is a line of what it said."""
    return outcome.end is End.EXITED and outcome.exit_code == 0 and word in outcome.stdout.splitlines()
