"""Tools in conversations: the texts around calls, their results and the list of tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mftrun.data.sample import Message, Sample, ToolCall
from mftrun.data.templates.base import UnrenderableError


@dataclass(frozen=True)
class ToolText:
    r"""How a role template writes tools.

    A call is ``call_prefix + {"name": …, "arguments": …} + call_suffix``, in JSON as Python's ``json.dumps``
    writes it: arguments that are given as text are parsed, so that spaces and escapes in it are not trained.
    Calls follow the assistant's text and each other after ``call_separator``. Results that follow each other
    form one turn. The list of tools, one JSON object each, stands in the system turn, after the system text
    and ``list_after_system``.

    Args:
        list_prefix: Before the list of tools.
        list_separator: Between two tools.
        list_suffix: After the list.
        list_after_system: Between the system text, where there is one, and the list.
        call_prefix: Before a call.
        call_suffix: After a call.
        call_separator: Between the assistant's text and a call, and between two calls.
        turn_prefix: Before the first of a run of results.
        turn_suffix: After the last of a run of results.
        result_prefix: Before a result.
        result_suffix: After a result.
        result_separator: Between two results.
    """

    list_prefix: str
    list_suffix: str
    call_prefix: str
    call_suffix: str
    turn_prefix: str
    turn_suffix: str
    result_prefix: str = ""
    result_suffix: str = ""
    list_separator: str = "\n"
    list_after_system: str = "\n\n"
    call_separator: str = "\n"
    result_separator: str = "\n"


def tools_of(sample: Sample) -> list[Any]:
    """The tools of a sample.

    Raises:
        UnrenderableError: They are not a JSON list.
    """
    try:
        tools = json.loads(sample.tools) if sample.tools else []
    except ValueError as error:
        raise UnrenderableError(f"the list of tools is not JSON: {error}") from error
    if not isinstance(tools, list):
        raise UnrenderableError("the tools must be a JSON list of descriptions")
    return tools


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call.

    Raises:
        UnrenderableError: They are not a JSON object.
    """
    try:
        arguments = json.loads(call.arguments)
    except ValueError as error:
        raise UnrenderableError(f"the arguments of the call of {call.name} are not JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise UnrenderableError(f"the arguments of the call of {call.name} must be a JSON object")
    return arguments


def as_json(value: Any) -> str:
    """JSON as chat templates write it."""
    return json.dumps(value, ensure_ascii=False)


def call_texts(message: Message) -> Iterator[str]:
    """Each call of a message as JSON.

    Raises:
        UnrenderableError: Arguments are not a JSON object.
    """
    for call in message.tool_calls:
        yield as_json({"name": call.name, "arguments": arguments_of(call)})
