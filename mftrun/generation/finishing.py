"""Where an answer ends among the tokens that came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from mftrun.generation.base import Ending

Finish = Literal["stop", "length", "interrupted"]


class Finished(NamedTuple):
    """An answer.

    Attributes:
        text: What it says.
        tokens: How many tokens it has, without the end token.
        finish: Whether it came to its end, grew too long, or was interrupted.
    """

    text: str
    tokens: int
    finish: Finish

    @property
    def ended_at_once(self) -> bool:
        """Whether it came to its end and says nothing."""
        return self.finish == "stop" and not self.text


def finished(ids: Sequence[int], budget: int, ending: Ending) -> Finished:
    """Cuts an answer at the first end token or stop text, and at its longest length.

    Args:
        ids: The tokens that came.
        budget: How many there may be.
        ending: What ends an answer.
    """
    ids = list(ids)[:budget]
    end = next((place for place, token in enumerate(ids) if token in ending.stop_ids), None)
    said = ids[:end]
    text = ending.decode(said)
    found = [place for stop in ending.stop if (place := text.find(stop)) >= 0]
    if found:
        return Finished(text[: min(found)], _tokens_until(said, ending), "stop")
    if end is not None:
        return Finished(text, len(said), "stop")
    return Finished(text, len(said), "length" if len(ids) == budget else "interrupted")


def _tokens_until(ids: list[int], ending: Ending) -> int:
    """The fewest tokens that hold a stop text."""
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        text = ending.decode(ids[:middle])
        low, high = (low, middle) if any(stop in text for stop in ending.stop) else (middle + 1, high)
    return low
