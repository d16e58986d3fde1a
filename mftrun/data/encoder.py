"""From pieces of text to tokens and targets, batched through the Rust tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from mftrun.errors import ConfigError


class Part(NamedTuple):
    """A piece of a conversation.

    Attributes:
        text: What it says; may be empty.
        is_template: Whether the names of control tokens in it mean those tokens.
        is_target: Whether its tokens are trained.
    """

    text: str
    is_template: bool = False
    is_target: bool = False


class Encoded(NamedTuple):
    """A conversation of n tokens.

    Attributes:
        ids: int32[n].
        targets: Which tokens are trained, bool[n].
    """

    ids: npt.NDArray[np.int32]
    targets: npt.NDArray[np.bool_]


class _Place(Enum):
    """Where a text stands: a tokenizer may put a space in front of text, depending on it."""

    START = "start"
    AFTER_CONTROL = "after control"
    INSIDE = "inside"


@dataclass
class _Run:
    """Text tokenized as one, from one control token or change of target to the next; or a control token."""

    text: str
    is_target: bool
    place: _Place
    control: int | None = None


class Encoder:
    """Tokenizes conversations as a server tokenizes their text, apart from control tokens inside messages.

    Text from one control token to the next is tokenized in one go, across the borders of messages and
    template, as happens to the rendered prompt at inference; only answers are tokenized apart, as they are
    generated apart.

    Args:
        tokenizer: The Rust tokenizer; it is not changed.
        control: Tokens that may not come from the text of messages even if the tokenizer does not call them
            special.
    """

    def __init__(self, tokenizer: Tokenizer, control: Collection[str]) -> None:
        added = tokenizer.get_added_tokens_decoder()
        self._ids = {token.content: number for number, token in added.items() if token.content}
        self._eats_space = {token.content for token in added.values() if token.rstrip}
        names = sorted(self._ids, key=len, reverse=True)
        self._names = re.compile(f"({'|'.join(map(re.escape, names))})") if names else None
        self._pieces: dict[str, list[str]] = {}
        state = json.loads(tokenizer.to_str())
        self._tokenizers = _tokenizers_by_place(state, control)
        self._forbidden = _control_ids(state, control)

    def encode_all(self, conversations: Iterable[Iterable[Part]]) -> list[Encoded]:
        """Tokens and targets of each conversation; equal texts are tokenized once.

        Raises:
            ConfigError: The tokenizer knows no way to write some text of a message but as a control token.
        """
        runs = [self._runs(parts) for parts in conversations]
        ids = self._tokenized(run for conversation in runs for run in conversation if run.control is None)
        return [_joined(conversation, ids) for conversation in runs]

    def _runs(self, parts: Iterable[Part]) -> list[_Run]:
        runs: list[_Run] = []
        for text, is_control, is_target in self._split(parts):
            last = runs[-1] if runs else None
            if is_control:
                runs.append(_Run(text, is_target, _place_after(last), self._ids[text]))
            elif last is not None and last.control is None and last.is_target == is_target:
                last.text += text
            else:
                runs.append(_Run(text, is_target, _place_after(last)))
        self._eat_space(runs)
        return runs

    def _split(self, parts: Iterable[Part]) -> Iterator[tuple[str, bool, bool]]:
        for part in parts:
            pieces = self._pieces_of(part.text) if part.is_template else [part.text]
            for number, text in enumerate(pieces):
                if text:
                    yield text, number % 2 == 1, part.is_target

    def _pieces_of(self, text: str) -> list[str]:
        if text not in self._pieces:  # re.split puts the names at the odd places
            self._pieces[text] = self._names.split(text) if self._names else [text]
        return self._pieces[text]

    def _eat_space(self, runs: list[_Run]) -> None:
        for before, run in pairwise(runs):
            if before.text in self._eats_space and before.control is not None and not run.is_target:
                run.text = run.text.lstrip()

    def _tokenized(self, runs: Iterable[_Run]) -> _Ids:
        texts: dict[_Place, dict[str, None]] = {place: {} for place in _Place}
        for run in runs:
            texts[run.place][run.text] = None
        return {
            (place, text): ids
            for place, unique in texts.items()
            for text, ids in zip(unique, self._batch(place, list(unique)), strict=True)
        }

    def _batch(self, place: _Place, texts: list[str]) -> list[npt.NDArray[np.int32]]:
        encodings = self._tokenizers[place].encode_batch_fast(texts, add_special_tokens=False)
        ids = [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        if ids and (found := np.isin(np.concatenate(ids), self._forbidden)).any():
            raise self._refusal(texts, ids, int(np.concatenate(ids)[found][0]))
        return ids

    def _refusal(self, texts: list[str], ids: list[npt.NDArray[np.int32]], token: int) -> ConfigError:
        text = next(text for text, row in zip(texts, ids, strict=True) if token in row)
        name = next(name for name, number in self._ids.items() if number == token)
        message = f"the tokenizer can only write {name!r} in a message as that control token; remove it from"
        return ConfigError("template", f"{message} the data (the text begins {text[:80]!r})")


_Ids = dict[tuple[_Place, str], npt.NDArray[np.int32]]


def _place_after(run: _Run | None) -> _Place:
    if run is None:
        return _Place.START
    return _Place.INSIDE if run.control is None else _Place.AFTER_CONTROL


def _joined(runs: list[_Run], ids: _Ids) -> Encoded:
    pieces = [
        ids[run.place, run.text] if run.control is None else np.array([run.control], dtype=np.int32)
        for run in runs
    ]
    targets = np.repeat([run.is_target for run in runs], [len(piece) for piece in pieces])
    return Encoded(np.concatenate(pieces), targets)


def _control_ids(state: Mapping[str, Any], control: Collection[str]) -> list[int]:
    model = state["model"]
    unknown = {model.get("unk_token"), model.get("unk_id")}
    return [
        token["id"]
        for token in state["added_tokens"]
        if (token["special"] or token["content"] in control)
        and not unknown.intersection({token["id"], token["content"]})
    ]


def _tokenizers_by_place(state: dict[str, Any], control: Collection[str]) -> dict[_Place, Tokenizer]:
    for token in state["added_tokens"]:
        token["special"] = token["special"] or token["content"] in control
    state = {**state, "truncation": None, "padding": None}
    texts = {place: json.dumps(_adapted(state, place)) for place in _Place}
    built = {text: Tokenizer.from_str(text) for text in set(texts.values())}
    for tokenizer in built.values():
        tokenizer.encode_special_tokens = True  # read as text: control tokens are put in by their id
    return {place: built[text] for place, text in texts.items()}


def _adapted(state: dict[str, Any], place: _Place) -> dict[str, Any]:
    steps = {key: _without_space(state[key], place) for key in ("normalizer", "pre_tokenizer")}
    return {**state, **steps}


def _without_space(step: Any, place: _Place) -> Any:
    """A step of a tokenizer without the space it would put before a text that does not stand at ``place``."""
    if isinstance(step, list):
        return [_without_space(item, place) for item in step]
    if not isinstance(step, dict):
        return step
    kind = step.get("type")
    is_first_only = step.get("prepend_scheme") == "first"
    if kind == "Metaspace" and (place is _Place.INSIDE or (place is _Place.AFTER_CONTROL and is_first_only)):
        return {**step, "prepend_scheme": "never"}
    if kind == "Prepend" and place is _Place.INSIDE:
        return {"type": "Sequence", "normalizers": []}
    if kind == "ByteLevel" and place is _Place.INSIDE:
        return {**step, "add_prefix_space": False}
    return {key: _without_space(value, place) for key, value in step.items()}
