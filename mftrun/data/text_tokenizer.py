"""From plain texts to token ids, batched through the Rust tokenizer; control tokens in the text stay text."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from mftrun.data.words import WordTokenizer, word_tokenizer


class Place(Enum):
    """Where a text stands: a tokenizer may put a space in front of text, depending on it."""

    START = "start"
    AFTER_CONTROL = "after control"
    INSIDE = "inside"


class TextTokenizer:
    """Tokenizes texts in which the names of control tokens mean nothing.

    Args:
        tokenizer: The Rust tokenizer; it is not changed. Its truncation and padding do not act.
        control: Tokens that may not come from text even if the tokenizer does not call them special.

    Attributes:
        control_ids: Ids that no text shall become. A tokenizer that knows no other way to write a text gives
            them nevertheless; the caller looks for them.
    """

    def __init__(self, tokenizer: Tokenizer, control: Collection[str]) -> None:
        state = json.loads(tokenizer.to_str())
        self.control_ids: list[int] = _control_ids(state, control)
        self._ways = _ways_by_place(state, control)

    def encode(self, place: Place, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """The tokens of each text, int32[n]."""
        return self._ways[place].encode(texts)


class _Way:
    """How text of one place is tokenized: word by word where that is exact, else by the Rust tokenizer.

    Args:
        tokenizer: The Rust tokenizer; text never becomes one of its special tokens.
        words: The fast way, or None.
    """

    def __init__(self, tokenizer: Tokenizer, words: WordTokenizer | None) -> None:
        tokenizer.encode_special_tokens = True  # read as text: control tokens are put in by their id
        self._tokenizer = tokenizer
        self._words = words

    def __reduce__(self) -> tuple[Any, ...]:
        return _Way, (self._tokenizer, self._words)  # a pickled tokenizer forgets how it reads special tokens

    def encode(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        if self._words is None:
            return self._plain(texts)
        found = [self._words.ids(text) for text in texts]
        rest = iter(self._plain([text for text, ids in zip(texts, found, strict=True) if ids is None]))
        return [next(rest) if ids is None else ids for ids in found]

    def _plain(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]


def _control_ids(state: Mapping[str, Any], control: Collection[str]) -> list[int]:
    model = state["model"]
    unknown = {model.get("unk_token"), model.get("unk_id")}
    return [
        token["id"]
        for token in state["added_tokens"]
        if (token["special"] or token["content"] in control)
        and not unknown.intersection({token["id"], token["content"]})
    ]


def _ways_by_place(state: dict[str, Any], control: Collection[str]) -> dict[Place, _Way]:
    for token in state["added_tokens"]:
        token["special"] = token["special"] or token["content"] in control
    state = {**state, "truncation": None, "padding": None}
    adapted = {place: _adapted(state, place) for place in Place}
    texts = {place: json.dumps(value) for place, value in adapted.items()}
    states = {text: adapted[place] for place, text in texts.items()}  # most tokenizers need only one
    built = {text: _way(text, state) for text, state in states.items()}
    return {place: built[text] for place, text in texts.items()}


def _way(text: str, state: dict[str, Any]) -> _Way:
    tokenizer = Tokenizer.from_str(text)
    return _Way(tokenizer, word_tokenizer(tokenizer, state))


def _adapted(state: dict[str, Any], place: Place) -> dict[str, Any]:
    steps = {key: _without_space(state[key], place) for key in ("normalizer", "pre_tokenizer")}
    return {**state, **steps}


def _without_space(step: Any, place: Place) -> Any:
    """A step of a tokenizer without the space it would put before a text that does not stand at ``place``."""
    if isinstance(step, list):
        return [_without_space(item, place) for item in step]
    if not isinstance(step, dict):
        return step
    kind = step.get("type")
    is_first_only = step.get("prepend_scheme") == "first"
    if kind == "Metaspace" and (place is Place.INSIDE or (place is Place.AFTER_CONTROL and is_first_only)):
        return {**step, "prepend_scheme": "never"}
    if kind == "Prepend" and place is Place.INSIDE:
        return {"type": "Sequence", "normalizers": []}
    if kind == "ByteLevel" and place is Place.INSIDE:
        return {**step, "add_prefix_space": False}
    return {key: _without_space(value, place) for key, value in step.items()}
