"""An answer on a terminal while it grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mftrun.generation.base import Ending

_UNFINISHED = "\ufffd"  # what part of a character decodes to


class TextStream:
    """Writes what is new in an answer, as far as it cannot change any more.

    Args:
        ending: What ends an answer: what may become a stop text is held back.
        write: Takes the new text.
    """

    def __init__(self, ending: Ending, write: Callable[[str], None]) -> None:
        self._ending = ending
        self._write = write
        self._shown = ""

    def feed(self, ids: Sequence[int]) -> None:
        """Takes all tokens so far."""
        said = [token for token in ids if token not in self._ending.stop_ids]
        text = self._ending.decode(said).rstrip(_UNFINISHED)
        self._show(text[: _safe_length(text, self._ending.stop)])

    def finish(self, text: str) -> None:
        """Takes the whole answer."""
        self._show(text)

    def _show(self, text: str) -> None:
        if len(text) > len(self._shown) and text.startswith(self._shown):
            self._write(text[len(self._shown) :])
            self._shown = text


def _safe_length(text: str, stops: Sequence[str]) -> int:
    """How much of a text comes before a stop text, or what may grow to be one."""
    places = [len(text)]
    for stop in stops:
        found = text.find(stop)
        begun = (len(text) - size for size in range(min(len(stop), len(text)), 0, -1))
        places.append(
            found if found >= 0 else next((at for at in begun if stop.startswith(text[at:])), len(text))
        )
    return min(places)
