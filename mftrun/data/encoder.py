"""From pieces of text to tokens and the weights of targets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from mftrun.data.text_tokenizer import Place, TextTokenizer


class Part(NamedTuple):
    """A piece of a conversation.

    Attributes:
        text: What it says; may be empty.
        is_template: Whether the names of control tokens in it mean those tokens.
        weight: How many times each of its tokens counts as a target; 0 trains none.
    """

    text: str
    is_template: bool = False
    weight: float = 0.0


class Encoded(NamedTuple):
    """A conversation of n tokens.

    Attributes:
        ids: int32[n].
        weights: How many times each token counts as a target, float32[n]; 0 where it is none, as always at
            the first token, which nothing predicts.
    """

    ids: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    @property
    def targets(self) -> npt.NDArray[np.bool_]:
        """Which tokens are trained, bool[n]."""
        return self.weights > 0


@dataclass(slots=True)
class _Run:
    """Text tokenized as one, from one control token or change of weight to the next; or a control token."""

    text: str
    weight: float
    place: Place
    control: int | None = None


class Encoder:
    """Tokenizes conversations as a server tokenizes their text, apart from control tokens inside messages.

    Text from one control token to the next is tokenized in one go, across the borders of messages and
    template, as happens to the rendered prompt at inference; only trained answers are tokenized apart, as
    they are generated apart.

    Args:
        tokenizer: The Rust tokenizer; it is not changed.
        control: Tokens that may not come from the text of messages even if the tokenizer does not call them
            special.
    """

    def __init__(self, tokenizer: Tokenizer, control: Collection[str]) -> None:
        added = tokenizer.get_added_tokens_decoder()
        self._ids = {token.content: number for number, token in added.items() if token.content}
        self._eats_right = {token.content for token in added.values() if token.rstrip}
        self._eats_left = {token.content for token in added.values() if token.lstrip}
        names = sorted(self._ids, key=len, reverse=True)
        self._names = re.compile(f"({'|'.join(map(re.escape, names))})") if names else None
        self._pieces: dict[str, list[str]] = {}
        self._text_tokenizer = TextTokenizer(tokenizer, control)
        self._forbidden = np.array(self._text_tokenizer.control_ids, dtype=np.int32)

    def encode_all(self, conversations: Iterable[Iterable[Part]]) -> list[Encoded | str]:
        """Tokens and targets of each conversation; equal texts are tokenized once.

        A conversation whose text the tokenizer can only write as a control token gives a sentence about it.
        """
        runs = [self._runs(parts) for parts in conversations]
        ids = self._tokenized(run for conversation in runs for run in conversation if run.control is None)
        refused = self._refused(ids)
        return [_refusal(conversation, refused) or _joined(conversation, ids) for conversation in runs]

    def _runs(self, parts: Iterable[Part]) -> list[_Run]:
        runs: list[_Run] = []
        for text, is_control, weight in self._split(parts):
            last = runs[-1] if runs else None
            if is_control:
                runs.append(_Run(text, weight, _place_after(last), self._ids[text]))
            elif last is not None and last.control is None and last.weight == weight:
                last.text += text
            else:
                runs.append(_Run(text, weight, _place_after(last)))
        self._eat_space(runs)
        return runs

    def _split(self, parts: Iterable[Part]) -> Iterator[tuple[str, bool, float]]:
        for part in parts:
            pieces = self._pieces_of(part.text) if part.is_template else [part.text]
            for number, text in enumerate(pieces):
                if text:
                    yield text, number % 2 == 1, part.weight

    def _pieces_of(self, text: str) -> list[str]:
        if len(text) > _CACHED_LENGTH:
            return self._names.split(text) if self._names else [text]
        if text not in self._pieces:  # re.split puts the names at the odd places
            if len(self._pieces) >= _CACHED_TEXTS:
                self._pieces.clear()
            self._pieces[text] = self._names.split(text) if self._names else [text]
        return self._pieces[text]

    def _eat_space(self, runs: list[_Run]) -> None:
        """Tokens may swallow the space beside them; what the model itself writes keeps its space."""
        for left, right in pairwise(runs):
            if left.text in self._eats_right and left.control is not None and not right.weight:
                right.text = right.text.lstrip() if right.control is None else right.text
            if right.text in self._eats_left and right.control is not None and not left.weight:
                left.text = left.text.rstrip() if left.control is None else left.text

    def _tokenized(self, runs: Iterable[_Run]) -> _Ids:
        texts: dict[Place, dict[str, None]] = {place: {} for place in Place}
        for run in runs:
            texts[run.place][run.text] = None
        return {
            (place, text): ids
            for place, unique in texts.items()
            if unique
            for text, ids in zip(unique, self._text_tokenizer.encode(place, list(unique)), strict=True)
        }

    def _refused(self, ids: _Ids) -> dict[tuple[Place, str], str]:
        """Texts that became control tokens, with the name of the first such token."""
        if not ids or not np.isin(np.concatenate(list(ids.values())), self._forbidden).any():
            return {}
        names = {number: name for name, number in self._ids.items()}
        found = {key: row[np.isin(row, self._forbidden)] for key, row in ids.items()}
        return {key: names[int(control[0])] for key, control in found.items() if len(control)}


_CACHED_LENGTH, _CACHED_TEXTS = 1000, 10_000  # templates repeat a few short texts

_Ids = dict[tuple[Place, str], npt.NDArray[np.int32]]


def _place_after(run: _Run | None) -> Place:
    if run is None:
        return Place.START
    return Place.INSIDE if run.control is None else Place.AFTER_CONTROL


def _refusal(runs: list[_Run], refused: dict[tuple[Place, str], str]) -> str | None:
    for run in runs if refused else ():
        name = refused.get((run.place, run.text)) if run.control is None else None
        if name is not None:
            message = f"the tokenizer can only write {name!r} in a message as that control token"
            return f"{message}; remove it from the text"
    return None


def _joined(runs: list[_Run], ids: _Ids) -> Encoded:
    pieces = [
        ids[run.place, run.text] if run.control is None else np.array([run.control], dtype=np.int32)
        for run in runs
    ]
    if not pieces:
        return Encoded(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))
    weights = np.repeat(
        np.array([run.weight for run in runs], dtype=np.float32), [len(piece) for piece in pieces]
    )
    weights[:1] = 0.0
    return Encoded(np.concatenate(pieces), weights)
