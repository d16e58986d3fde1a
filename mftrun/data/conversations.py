"""Formats that list the messages of a conversation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

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

Parsed = tuple[tuple[Message, ...], str]

SYSTEM_KEYS = frozenset({"system", "system_prompt"})
TOOL_KEYS = frozenset({"tools", "functions"})

_LARGEST_WEIGHT = 1_000_000  # far from where float32 sums of a batch overflow


class Conversation(ABC):
    """A list of messages, optionally with ``system``, ``tools`` and each message's ``train`` or ``weight``.

    Attributes:
        name: What a user calls the format.
        keys: The key that holds the messages.
        optional: Further keys that it reads.
        roles: Roles by the names they are written with.
    """

    name: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    optional: ClassVar[frozenset[str]] = SYSTEM_KEYS | TOOL_KEYS
    roles: ClassVar[Mapping[str, str]]
    _role_key: ClassVar[str] = "role"
    _content_key: ClassVar[str] = "content"

    def parse(self, record: Mapping[str, Any]) -> Parsed:
        """The messages, and the tools as the text of a JSON list ("" for none).

        Raises:
            BadSampleError: A field is missing, or of the wrong type.
        """
        (key,) = self.keys
        turns = get(record, key)
        if not isinstance(turns, list):
            raise BadSampleError(f"{key!r} is {kind(turns)}, not a list of messages")
        messages = tuple(self._message(item, f"message {number}") for number, item in enumerate(turns, 1))
        return with_system(record, messages), _tools(record)

    def _message(self, item: Any, where: str) -> Message:
        if not isinstance(item, dict):
            wanted = f"{self._role_key!r} and {self._content_key!r}"
            raise BadSampleError(f"{where} is {kind(item)}, not an object with {wanted}")
        written = text(item, self._role_key, where)
        role = self.roles.get(written)
        if role is None:
            known = ", ".join(self.roles)
            raise BadSampleError(f"{where} has the unknown role {written!r}; use one of {known}")
        weight = _weight(item, where) if "train" in item or "weight" in item else 1.0
        content, calls = self._said(item, written, where)
        return Message(role, content, weight if role == ASSISTANT else 1.0, calls)

    @abstractmethod
    def _said(self, item: Mapping[str, Any], role: str, where: str) -> tuple[str, tuple[ToolCall, ...]]:
        """The text of a message and its calls; ``role`` is the role as it is written."""


class ChatRounds(Conversation):
    """MFTCoder's ``chat_rounds``: a list of ``{"role", "content"}``."""

    name = "chat_rounds"
    keys = ("chat_rounds",)
    roles = MappingProxyType(
        {
            "system": SYSTEM,
            "human": USER,
            "user": USER,
            "bot": ASSISTANT,
            "assistant": ASSISTANT,
            "gpt": ASSISTANT,
        }
    )

    def _said(self, item: Mapping[str, Any], role: str, where: str) -> tuple[str, tuple[ToolCall, ...]]:
        return text(item, self._content_key, where), ()


class OpenAIMessages(Conversation):
    """OpenAI's ``messages``: content is text, or a list of text parts, or null beside ``tool_calls``."""

    name = "messages"
    keys = ("messages",)
    roles = MappingProxyType(
        {
            "system": SYSTEM,
            "developer": SYSTEM,
            "user": USER,
            "assistant": ASSISTANT,
            "tool": TOOL,
            "function": TOOL,
        }
    )

    def _said(self, item: Mapping[str, Any], role: str, where: str) -> tuple[str, tuple[ToolCall, ...]]:
        calls = _calls(item, where) if "tool_calls" in item or "function_call" in item else ()
        if calls and item.get(self._content_key) is None:
            return "", calls
        content = get(item, self._content_key, where)
        if isinstance(content, list):
            return "".join(_part(part, number, where) for number, part in enumerate(content, 1)), calls
        return checked_text(content, self._content_key, where), calls


class ShareGPT(Conversation):
    """ShareGPT's ``conversations``: a list of ``{"from", "value"}``.

    The value of a ``function_call`` is JSON: ``{"name", "arguments"}``, or a list of them.
    """

    name = "conversations"
    keys = ("conversations",)
    roles = MappingProxyType(
        {
            "system": SYSTEM,
            "human": USER,
            "user": USER,
            "gpt": ASSISTANT,
            "assistant": ASSISTANT,
            "chatgpt": ASSISTANT,
            "bot": ASSISTANT,
            "function_call": ASSISTANT,
            "observation": TOOL,
            "tool": TOOL,
        }
    )
    _role_key = "from"
    _content_key = "value"

    def _said(self, item: Mapping[str, Any], role: str, where: str) -> tuple[str, tuple[ToolCall, ...]]:
        value = text(item, self._content_key, where)
        if role != "function_call":
            return value, ()
        what = f"the function call of {where}"
        found = from_json(value, what)
        calls = found if isinstance(found, list) else [found]
        if not calls:
            raise BadSampleError(f"{what} is an empty list")
        return "", tuple(_call(call, what) for call in calls)


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


def _weight(item: Mapping[str, Any], where: str) -> float:
    train, weight = item.get("train"), item.get("weight")
    if train is not None and not isinstance(train, bool):
        raise BadSampleError(f"'train' of {where} is {kind(train)}, not true or false")
    if weight is None:
        return 0.0 if train is False else 1.0
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


def _tools(record: Mapping[str, Any]) -> str:
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
