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
passed over. Every format but `text` may have a `system` (or `system_prompt`), the conversations `tools`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from mftrun.data.conversations import SYSTEM_KEYS, ChatRounds, OpenAIMessages, Parsed, ShareGPT, with_system
from mftrun.data.fields import BadSampleError, checked_text, kind, optional_text, text
from mftrun.data.sample import ASSISTANT, DOCUMENT, USER, Message
from mftrun.errors import ConfigError
from mftrun.nearest import unknown

_FORMAT_KEY = "data.tasks.NAME.format"


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
        """The messages, and the tools as the text of a JSON list ("" for none).

        Raises:
            BadSampleError: A field is missing, or of the wrong type.
        """


@dataclass(frozen=True)
class Pair:
    """A question and its answer, each under a key of its own, and an optional ``system``."""

    question: str
    answer: str
    optional: frozenset[str] = SYSTEM_KEYS

    @property
    def name(self) -> str:
        """Both keys."""
        return f"{self.question}/{self.answer}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Both keys."""
        return self.question, self.answer

    def parse(self, record: Mapping[str, Any]) -> Parsed:
        """A user's message and the assistant's."""
        question, answer = text(record, self.question), text(record, self.answer)
        return with_system(record, (Message(USER, question), Message(ASSISTANT, answer))), ""


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
        return with_system(record, (*earlier, Message(USER, question), answer)), ""


@dataclass(frozen=True)
class Text:
    """A document under the key ``text``: continued pre-training."""

    name: str = "text"
    keys: tuple[str, ...] = ("text",)
    optional: frozenset[str] = frozenset()

    def parse(self, record: Mapping[str, Any]) -> Parsed:
        """One document."""
        return (Message(DOCUMENT, text(record, "text")),), ""


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
_PAIR_KEYS = frozenset(key for form in _PAIRS for key in form.keys)
_RANKS: tuple[tuple[Format, ...], ...] = ((ChatRounds(), OpenAIMessages(), ShareGPT()), _PAIRS, (Text(),))

FORMATS: Mapping[str, Format] = MappingProxyType({form.name: form for rank in _RANKS for form in rank})
"""All formats by name; within a rank none goes before another."""

RECOGNISED_KEYS = frozenset(key for form in FORMATS.values() for key in form.keys)
READ_KEYS = RECOGNISED_KEYS.union(*(form.optional for form in FORMATS.values()))
"""All keys that some format reads."""


class Recognised(NamedTuple):
    """A record in its format."""

    messages: tuple[Message, ...]
    tools: str
    format: str


class Recogniser(Protocol):
    """Turns records into messages; it can be pickled."""

    def parse(self, record: Mapping[str, Any]) -> Recognised:
        """The messages of a record.

        Raises:
            BadSampleError: It fits no format, or its fields do not fit the one that it has.
        """


@dataclass(frozen=True)
class AnyFormat:
    """Recognises the format of each record by its keys."""

    def parse(self, record: Mapping[str, Any]) -> Recognised:
        """The messages of a record in the format that its keys tell."""
        keys = frozenset(key for key in record if key in RECOGNISED_KEYS and record[key] is not None)
        fitting = _fitting_with_nulls(keys, RECOGNISED_KEYS.intersection(record))
        if not fitting:
            raise BadSampleError(_unrecognised(record))
        form, *others = fitting
        if others or (unread := _unread(form, keys)):
            raise BadSampleError(_ambiguous(fitting) if others else _left_over(form, unread))
        return Recognised(*form.parse(record), form.name)


@dataclass(frozen=True)
class OneFormat:
    """Takes every record to be of the same format.

    Args:
        name: A name of `FORMATS`.
    """

    name: str

    def parse(self, record: Mapping[str, Any]) -> Recognised:
        """The messages of a record."""
        return Recognised(*FORMATS[self.name].parse(record), self.name)


def recogniser(name: str | None, key: str = _FORMAT_KEY) -> Recogniser:
    """The recogniser that a user asks for.

    Args:
        name: A name of `FORMATS`; None recognises the format of each record.
        key: The config key that holds it.

    Raises:
        ConfigError: There is no such format.
    """
    if name is None:
        return AnyFormat()
    if name not in FORMATS:
        raise ConfigError(key, unknown(name, FORMATS, f"there is no format {name!r}"))
    return OneFormat(name)


def _fitting(keys: frozenset[str]) -> tuple[Format, ...]:
    """The formats of the first rank that has one whose keys are all there, but for parts of others."""
    for rank in _RANKS:
        fitting = [form for form in rank if keys.issuperset(form.keys)]
        if fitting:
            return tuple(form for form in fitting if not _is_part_of_another(form, fitting))
    return ()


@lru_cache(maxsize=1024)
def _fitting_with_nulls(keys: frozenset[str], written: frozenset[str]) -> tuple[Format, ...]:
    """The formats that fit; one that lacks nothing but a value goes on to say which value is null.

    Args:
        keys: Those with a value.
        written: All of them.
    """
    fitting = _fitting(keys)
    if keys == written:
        return fitting
    lacking = _lacking(keys, written)
    if not fitting or any(_is_part_of(fitting[0], form, written - keys) for form in lacking):
        return lacking
    return fitting


def _lacking(keys: frozenset[str], written: frozenset[str]) -> tuple[Format, ...]:
    """Of the formats that fit but for null values, the one with the most other values, if there is one."""
    forms = [form for form in FORMATS.values() if written.issuperset(form.keys)]
    return (max(forms, key=lambda form: len(keys.intersection(form.keys))),) if forms else ()


def _is_part_of(form: Format, other: Format, null: frozenset[str]) -> bool:
    """Whether a format fits only because a value that another one needs is null."""
    return set(form.keys) < set(other.keys) and not null.intersection(other.keys) <= other.optional


def _is_part_of_another(form: Format, fitting: list[Format]) -> bool:
    return any(set(form.keys) < set(other.keys) for other in fitting)


def _unread(form: Format, keys: frozenset[str]) -> frozenset[str]:
    """The keys of pairs that a format would leave aside; conversations may."""
    return frozenset() if form in _RANKS[0] else (keys & _PAIR_KEYS) - set(form.keys) - form.optional


def _ambiguous(found: tuple[Format, ...]) -> str:
    names = ", ".join(form.name for form in found)
    return f"fits more than one format: {names}; say which with {_FORMAT_KEY}={found[0].name}"


def _left_over(form: Format, unread: frozenset[str]) -> str:
    keys = ", ".join(map(repr, sorted(unread)))
    return f"fits {form.name}, but that does not read {keys}; if this is meant, say {_FORMAT_KEY}={form.name}"


def _unrecognised(record: Mapping[str, Any]) -> str:
    keys = ", ".join(map(repr, record)) or "none"
    return f"no known format (its keys are: {keys}); known: {', '.join(FORMATS)}"


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
