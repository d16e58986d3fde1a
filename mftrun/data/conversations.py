"""Formats that list the messages of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from mftrun.data.fields import (
    BadSampleError,
    checked_text,
    from_json,
    get,
    kind,
    name,
    optional_text,
    text,
    to_json,
)
from mftrun.data.sample import ASSISTANT, SYSTEM, TOOL, USER, Message, ToolCall

SYSTEM_KEYS = frozenset({"system", "system_prompt"})
TOOL_KEYS = frozenset({"tools", "functions"})

ROLE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "system": SYSTEM,
        "developer": SYSTEM,
        "human": USER,
        "user": USER,
        "assistant": ASSISTANT,
        "bot": ASSISTANT,
        "gpt": ASSISTANT,
        "chatgpt": ASSISTANT,
        "function_call": ASSISTANT,
        "tool": TOOL,
        "function": TOOL,
        "observation": TOOL,
    }
)
"""Roles by the names they are written with."""

_LARGEST_WEIGHT = 1_000_000  # far from where float32 sums of a batch overflow
_WEIGHT_KEYS, _CALL_KEYS = ("weight", "train"), ("tool_calls", "function_call")
_TYPO = 0.8  # likeness of a key to one of a weight from which on it is taken for that: `wieght` has 0.83


class Parsed(NamedTuple):
    """What a record says.

    Attributes:
        messages: Its messages.
        tools: Its tools as the text of a JSON list; "" for none.
        unread: Keys that were passed over beside those that the format never reads, those inside of messages
            as ``messages.name``.
    """

    messages: tuple[Message, ...]
    tools: str = ""
    unread: frozenset[str] = frozenset()


class _Style(NamedTuple):
    """The keys of who speaks, and of what is said."""

    role: str
    content: str


OPENAI, SHAREGPT = _Style("role", "content"), _Style("from", "value")


@dataclass(frozen=True)
class Conversation:
    """A list of messages, optionally with ``system``, ``tools`` and each message's ``train`` or ``weight``.

    Each message is ``{"role", "content"}`` or ``{"from", "value"}``. The content is text, or a list of text
    parts, or null beside ``tool_calls``. That of a ``function_call`` is JSON: ``{"name", "arguments"}``, or a
    list of them.

    Args:
        name: What a user calls the format: the key that holds the messages.
        style: The keys that a message is said to lack if it has those of neither style.
        optional: Further keys that it reads.
    """

    name: str
    style: _Style = OPENAI
    optional: frozenset[str] = SYSTEM_KEYS | TOOL_KEYS

    @property
    def keys(self) -> tuple[str, ...]:
        """The name."""
        return (self.name,)

    def parse(self, record: Mapping[str, Any]) -> Parsed:
        """The messages, and the tools as the text of a JSON list ("" for none).

        Raises:
            BadSampleError: A field is missing, or of the wrong type.
        """
        turns = get(record, self.name)
        if not isinstance(turns, list):
            raise BadSampleError(f"{self.name!r} is {kind(turns)}, not a list of messages")
        messages, unread = messages_of(turns, self.name, style=self.style)
        return Parsed(with_system(record, messages), tools_of(record), unread)


def messages_of(
    turns: Sequence[Any], key: str, of: str = "", style: _Style = OPENAI, weight: float = 1.0
) -> tuple[tuple[Message, ...], frozenset[str]]:
    """The messages of a list, and the keys in them that are not read, as ``key.name``.

    Args:
        turns: The list.
        key: The key that holds it.
        of: What follows the number of a message where one is named.
        style: The keys that a message is said to lack if it has those of neither style.
        weight: Of the assistant's messages that do not say it themselves.

    Raises:
        BadSampleError: A field is missing, or of the wrong type.
    """
    messages: list[Message] = []
    unread: set[str] = set()
    for number, item in enumerate(turns, 1):
        where = f"message {number}{of}"
        if not isinstance(item, dict):
            raise BadSampleError(
                f"{where} is {kind(item)}, not an object with {style.role!r} and {style.content!r}"
            )
        shape = _shape(tuple(item), style)
        if shape.foreign:  # unless they are null, as where objects were made to be alike
            shape = _shape(tuple(name for name, value in item.items() if value is not None), style)
        if shape.unread or shape.foreign:
            unread.update(f"{key}.{name}" for name in shape.unread if item[name] is not None)
            _check_keys(item, shape, where)
        messages.append(_message(item, shape, where, weight))
    return tuple(messages), frozenset(unread)


class _Shape(NamedTuple):
    """What follows from the keys of a message alone.

    Attributes:
        style: Its style.
        foreign: Keys of the other style.
        unread: Keys that nothing reads.
        is_weighted: Whether it may say its weight.
        may_call: Whether it may call tools.
    """

    style: _Style
    foreign: tuple[str, ...]
    unread: tuple[str, ...]
    is_weighted: bool
    may_call: bool


@lru_cache(maxsize=1024)
def _shape(keys: tuple[str, ...], default: _Style) -> _Shape:
    others = [style for style in (OPENAI, SHAREGPT) if style != default]
    style = next((style for style in (default, *others) if style.role in keys), None)
    style = style or next((style for style in (default, *others) if style.content in keys), default)
    foreign = tuple(key for key in keys if key in {*OPENAI, *SHAREGPT}.difference(style))
    read = {*OPENAI, *SHAREGPT, *_WEIGHT_KEYS, *_CALL_KEYS}
    unread = tuple(key for key in keys if key not in read)
    given = [not set(names).isdisjoint(keys) for names in (_WEIGHT_KEYS, _CALL_KEYS)]
    return _Shape(style, foreign, unread, *given)


def _check_keys(item: Mapping[str, Any], shape: _Shape, where: str) -> None:
    """Refuses a message that mixes the keys of both styles, or that mistypes its weight."""
    if shape.foreign:
        styles = ", or ".join(f"{style.role!r} and {style.content!r}" for style in (OPENAI, SHAREGPT))
        own = next(key for key in shape.style if item.get(key) is not None)
        raise BadSampleError(f"{where} has both {own!r} and {shape.foreign[0]!r}; write {styles}")
    for key in shape.unread:
        if item[key] is not None and (meant := get_close_matches(key.lower(), _WEIGHT_KEYS, 1, _TYPO)):
            raise BadSampleError(f"{where} has {key!r}, which nothing reads; is {meant[0]!r} meant?")


def _message(item: Mapping[str, Any], shape: _Shape, where: str, weight: float) -> Message:
    role_key, content_key = shape.style
    written = text(item, role_key, where)
    role = ROLE_NAMES.get(written)
    if role is None:
        known = ", ".join(ROLE_NAMES)
        raise BadSampleError(f"{where} has the unknown role {written!r}; use one of {known}")
    if shape.is_weighted:
        weight = _weight(item, where, weight)
    calls = _calls(item, where) if shape.may_call else ()
    if written == "function_call":
        if calls:
            raise BadSampleError(f"{where} has calls beside its role 'function_call'; keep one")
        content, calls = "", _written_calls(text(item, content_key, where), f"the function call of {where}")
    elif calls and item.get(content_key) is None:
        content = ""
    else:
        content = _content(get(item, content_key, where), content_key, where)
    return Message(role, content, weight if role == ASSISTANT else 1.0, calls)


def _content(value: Any, key: str, where: str) -> str:
    if isinstance(value, list):
        return "".join(_part(part, number, where) for number, part in enumerate(value, 1))
    return checked_text(value, key, where)


def _written_calls(value: str, what: str) -> tuple[ToolCall, ...]:
    found = from_json(value, what)
    calls = found if isinstance(found, list) else [found]
    if not calls:
        raise BadSampleError(f"{what} is an empty list")
    return tuple(_call(call, what) for call in calls)


def with_system(record: Mapping[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Puts the record's ``system`` or ``system_prompt``, if it says something, in front of its messages.

    Raises:
        BadSampleError: It is no text, or the messages begin with another one.
    """
    if SYSTEM_KEYS.isdisjoint(record):
        return messages
    found = {key: optional_text(record, key) for key in sorted(SYSTEM_KEYS)}
    said = {key: system for key, system in found.items() if system.strip()}
    if not said:
        return messages
    (key, system), *others = said.items()
    if others or (messages and messages[0].role == SYSTEM):
        other = repr(others[0][0]) if others else "message 1"
        raise BadSampleError(f"both {key!r} and {other} are a system message; keep one")
    return (Message(SYSTEM, system), *messages)


def _weight(item: Mapping[str, Any], where: str, default: float) -> float:
    train, weight = item.get("train"), item.get("weight")
    if train is not None and not isinstance(train, bool):
        raise BadSampleError(f"'train' of {where} is {kind(train)}, not true or false")
    if weight is None:
        return default if train is None else float(train)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise BadSampleError(f"'weight' of {where} is {kind(weight)}, not a number")
    if not 0 <= weight <= _LARGEST_WEIGHT:  # nor NaN
        raise BadSampleError(f"'weight' of {where} is {str(weight)[:20]}, not from 0 to {_LARGEST_WEIGHT:,}")
    if train is not None and train != (weight > 0):
        raise BadSampleError(f"'train' and 'weight' of {where} contradict each other; keep one")
    return float(weight)


def _part(part: Any, number: int, where: str) -> str:
    if isinstance(part, str):
        return checked_text(part, "content", where)
    where = f"part {number} of {where}"
    if not isinstance(part, dict):
        raise BadSampleError(f"{where} is {kind(part)}, not an object with 'type' and 'text'")
    if (found := text(part, "type", where)) != "text":
        raise BadSampleError(f"{where} is of type {found!r}; only 'text' can be trained")
    return text(part, "text", where)


def _calls(item: Mapping[str, Any], where: str) -> tuple[ToolCall, ...]:
    calls, legacy = item.get("tool_calls"), item.get("function_call")
    if calls and legacy:
        raise BadSampleError(f"{where} has both 'tool_calls' and 'function_call'; keep one")
    if legacy is not None:
        return (_call(legacy, f"'function_call' of {where}"),)
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise BadSampleError(f"'tool_calls' of {where} is {kind(calls)}, not a list")
    return tuple(_call(call, f"call {number} of {where}") for number, call in enumerate(calls, 1))


def _call(call: Any, where: str) -> ToolCall:
    function = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(function, dict):
        raise BadSampleError(f"{where} is {kind(function)}, not an object with 'name' and 'arguments'")
    if not (called := text(function, "name", where)).strip():
        raise BadSampleError(f"'name' of {where} is empty")
    return ToolCall(called, _arguments(get(function, "arguments", where), where))


def _arguments(value: Any, where: str) -> str:
    written, what = value, name("arguments", where)
    if isinstance(value, str):
        if not value.strip():
            return "{}"
        value = from_json(value, what)
    if not isinstance(value, dict):
        raise BadSampleError(f"{what} is {kind(value)}, not an object")
    if isinstance(written, str):  # stays as it is; templates parse it and write JSON in their own way
        return checked_text(written, "arguments", where)
    return to_json(value, "arguments", where)


def tools_of(record: Mapping[str, Any]) -> str:
    """The tools of a record as the text of a JSON list; "" for none.

    Raises:
        BadSampleError: They are no list of objects.
    """
    if TOOL_KEYS.isdisjoint(record):
        return ""
    tools = _list_of_objects(record, "tools")
    functions = _list_of_objects(record, "functions")  # what OpenAI called them first
    if tools and functions:
        raise BadSampleError("both 'tools' and 'functions' are given; keep one")
    tools = tools or [{"type": "function", "function": function} for function in functions]
    return to_json(tools, "tools") if tools else ""


def _list_of_objects(record: Mapping[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    if isinstance(value, str):
        value = from_json(value, repr(key)) if value.strip() else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadSampleError(f"{key!r} is {kind(value)}, not a list of objects")
    for number, tool in enumerate(value, 1):
        if not isinstance(tool, dict):
            raise BadSampleError(f"entry {number} of {key!r} is {kind(tool)}, not an object")
    return value
