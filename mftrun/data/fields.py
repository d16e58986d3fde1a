"""Values of a record, checked: each refusal says which field is wrong and what it is instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    bytes: "bytes",
    list: "a list",
    dict: "an object",
}


class BadSampleError(Exception):
    """What is wrong with a record, without its place."""


def kind(value: Any) -> str:
    """What a value is, in words."""
    return _KINDS.get(type(value)) or f"a {type(value).__name__}"


def get(item: Mapping[str, Any], key: str, where: str = "") -> Any:
    """The value of a key.

    Args:
        item: An object of the record.
        key: What must be there.
        where: Which object, for the message (``message 2``); "" for the record itself.

    Raises:
        BadSampleError: It is not there.
    """
    if key in item:
        return item[key]
    raise BadSampleError(f"{where} has no {key!r}" if where else f"no {key!r}; {listed_keys(item)}")


def text(item: Mapping[str, Any], key: str, where: str = "") -> str:
    """The text of a key (see `get`).

    Raises:
        BadSampleError: It is missing, no text, or cannot be written as UTF-8.
    """
    return checked_text(get(item, key, where), key, where)


def checked_text(value: Any, key: str, where: str = "") -> str:
    """The value, which must be text (see `get`).

    Raises:
        BadSampleError: It is none, or cannot be written as UTF-8.
    """
    if type(value) is not str:
        raise BadSampleError(f"{name(key, where)} is {kind(value)}, not text")
    if not value.isascii():
        _refuse_surrogates(value, key, where)
    return value


def optional_text(item: Mapping[str, Any], key: str, where: str = "") -> str:
    """The text of a key that may be missing or null; "" then.

    Raises:
        BadSampleError: It is no text.
    """
    value = item.get(key)
    return "" if value is None else checked_text(value, key, where)


def name(key: str, where: str) -> str:
    """What a message calls the value of a key."""
    return f"{key!r} of {where}" if where else repr(key)


def from_json(value: str, what: str) -> Any:
    """The value that a JSON text inside a record holds.

    Raises:
        BadSampleError: It is not JSON.
    """
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadSampleError(f"{what} is not JSON: {error}") from None


def to_json(value: Any, key: str, where: str = "") -> str:
    """The value as JSON text (see `get`).

    Raises:
        BadSampleError: It has none (bytes or a date, from a table), or cannot be written as UTF-8.
    """
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadSampleError(f"{name(key, where)} cannot be written as JSON: {error}") from None
    return checked_text(written, key, where)


def _refuse_surrogates(value: str, key: str, where: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"{name(key, where)} holds half a surrogate pair ({error.reason})"
        raise BadSampleError(message) from None


def listed_keys(item: Mapping[str, Any]) -> str:
    """The keys of an object, for a message."""
    return f"the keys are: {', '.join(map(repr, item)) or 'none'}"
