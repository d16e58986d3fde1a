"""The formats a record may be written in, and how the one of a record is recognised.

Records are recognised one by one, by the keys that are there and not null.

1. Conversations go first: `chat_rounds`, `messages`, `conversations`. Data sets often keep the first prompt
   or the rendered text beside them.
2. Then a question and its answer: `instruction` (with `input`, which makes it Alpaca's, or without) and
   `output` or `response`; `prompt` and `answer`, `response` or `completion`; `input` and `output`;
   `question` and `response` or `answer`; `query` and `answer`.
3. `text` goes last: Alpaca's own files keep the rendered text there.

A record is refused if two formats of the same rank fit, or if a key of the second kind would be left unread
(a `prompt` beside `input` and `output`): the format of its source must then be named. All other keys are
passed over, and counted. Every format but `text` may have a `system` (or `system_prompt`), and where there
are lists of messages, `tools`. A user may say which columns stand for which keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from mftrun.data.conversations import (
    SHAREGPT,
    SYSTEM_KEYS,
    TOOL_KEYS,
    Conversation,
    Parsed,
    messages_of,
    tools_of,
    with_system,
)
from mftrun.data.fields import BadSampleError, checked_text, get, kind, optional_text, text
from mftrun.data.sample import ASSISTANT, DOCUMENT, USER, Message


class Format(Protocol):
    """How a record becomes messages.

    Attributes:
        name: What a user calls it.
        keys: The keys it is recognised by.
        optional: Further keys that it reads.
    """

    @property
    def name(self) -> str: ...

    @property
    def keys(self) -> tuple[str, ...]: ...

    @property
    def optional(self) -> frozenset[str]: ...

    def parse(self, record: Mapping[str, Any]) -> Parsed:
        """The messages, the tools, and keys that are not read for once.

        Raises:
            BadSampleError: A field is missing, or of the wrong type.
        """


@dataclass(frozen=True)
class Pair:
    """A question and its answer, each under a key of its own, and an optional ``system``.

    Each of both may be a list of messages (see `Conversation`) instead of text, and there may be ``tools``
    then. What the assistant says in the question is not trained, unless it has a weight of its own.
    """

    question: str
    answer: str
    optional: frozenset[str] = SYSTEM_KEYS | TOOL_KEYS

    @property
    def name(self) -> str:
        """Both keys."""
        return f"{self.question}/{self.answer}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Both keys."""
        return self.question, self.answer

    def parse(self, record: Mapping[str, Any]) -> Parsed:
        """A user's message and the assistant's, or those of the lists."""
        question, answer = get(record, self.question), get(record, self.answer)
        if isinstance(question, list) or isinstance(answer, list):
            asked, unread = _side(question, self.question, USER, 0.0)
            answered, more = _side(answer, self.answer, ASSISTANT, 1.0)
            return Parsed(with_system(record, (*asked, *answered)), tools_of(record), unread | more)
        asked = (Message(USER, checked_text(question, self.question)),)
        answered = (Message(ASSISTANT, checked_text(answer, self.answer)),)
        unread = frozenset(key for key in TOOL_KEYS.intersection(record) if record[key] is not None)
        return Parsed(with_system(record, (*asked, *answered)), "", unread)


@dataclass(frozen=True)
class Instruction:
    """Alpaca's instruction, with its input on the next line unless that is empty, and its ``history``.

    Args:
        name: What a user calls the format.
        keys: The keys it is recognised by; the last is that of the answer.
        optional: Further keys that it reads.
    """

    name: str
    keys: tuple[str, ...]
    optional: frozenset[str] = SYSTEM_KEYS | {"input", "history"}

    def parse(self, record: Mapping[str, Any]) -> Parsed:
        """The turns of the history, a user's message and the assistant's."""
        question, given = text(record, "instruction"), optional_text(record, "input")
        if given.strip():
            question = f"{question}\n{given}"
        answer = Message(ASSISTANT, text(record, self.keys[-1]))
        earlier = _history(record.get("history"))
        return Parsed(with_system(record, (*earlier, Message(USER, question), answer)))


@dataclass(frozen=True)
class Text:
    """A document under the key ``text``: continued pre-training."""

    name: str = "text"
    keys: tuple[str, ...] = ("text",)
    optional: frozenset[str] = frozenset()

    def parse(self, record: Mapping[str, Any]) -> Parsed:
        """One document."""
        return Parsed((Message(DOCUMENT, text(record, "text")),))


_PAIRS: tuple[Format, ...] = (
    Instruction("alpaca", ("instruction", "input", "output")),
    Instruction("instruction/output", ("instruction", "output")),
    Instruction("instruction/response", ("instruction", "response")),
    Pair("prompt", "answer"),
    Pair("prompt", "response"),
    Pair("prompt", "completion"),
    Pair("input", "output"),
    Pair("question", "response"),
    Pair("question", "answer"),
    Pair("query", "answer"),
)
PAIR_KEYS = frozenset(key for form in _PAIRS for key in form.keys)
CONVERSATIONS: tuple[Format, ...] = (
    Conversation("chat_rounds"),
    Conversation("messages"),
    Conversation("conversations", SHAREGPT),
)
RANKS: tuple[tuple[Format, ...], ...] = (CONVERSATIONS, _PAIRS, (Text(),))

FORMATS: Mapping[str, Format] = MappingProxyType({form.name: form for rank in RANKS for form in rank})
"""All formats by name; within a rank none goes before another."""

RECOGNISED_KEYS = frozenset(key for form in FORMATS.values() for key in form.keys)
READ_KEYS = RECOGNISED_KEYS.union(*(form.optional for form in FORMATS.values()))
"""All keys that some format reads."""


def _side(value: Any, key: str, role: str, weight: float) -> tuple[tuple[Message, ...], frozenset[str]]:
    """One side of a pair: text, or a list of messages."""
    if isinstance(value, list):
        return messages_of(value, key, f" of {key!r}", weight=weight)
    return (Message(role, checked_text(value, key)),), frozenset()


def _history(value: Any) -> tuple[Message, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadSampleError(f"'history' is {kind(value)}, not a list of turns")
    turns = (_turn(turn, f"turn {number} of 'history'") for number, turn in enumerate(value, 1))
    return tuple(message for turn in turns for message in turn)


def _turn(turn: Any, where: str) -> tuple[Message, Message]:
    if not isinstance(turn, list) or len(turn) != 2:
        raise BadSampleError(f"{where} is not a list of a question and an answer")
    question, answer = (checked_text(said, "text", where) for said in turn)
    return Message(USER, question), Message(ASSISTANT, answer)
