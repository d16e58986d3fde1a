"""A sample: one conversation or document, and the place in the file it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

SYSTEM, USER, ASSISTANT, TOOL, DOCUMENT = "system", "user", "assistant", "tool", "document"
ROLES = (SYSTEM, USER, ASSISTANT, TOOL)

EXAMPLES = 5
"""How many bad samples a message or a report names."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant makes.

    Attributes:
        name: The function.
        arguments: Its arguments, as the text of a JSON object.
    """

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, or a whole document.

    Attributes:
        role: ``system``, ``user``, ``assistant``, ``tool`` (what a called function gave back), or
            ``document``.
        content: The text of the turn; may be empty beside `tool_calls`.
        weight: How many times each target token of an assistant's turn or a document counts; 0 trains none.
        tool_calls: Calls at the end of an assistant's turn.
    """

    role: str
    content: str
    weight: float = 1.0
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sample came from.

    Attributes:
        path: The file.
        line: Line in the file from 1 (of a table or a list: the entry); 0 when the sample was made.
    """

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


@dataclass(frozen=True, slots=True)
class Sample:
    """One valid conversation or document.

    Attributes:
        messages: The turns, as `problem` accepts them; a document is a single message of role ``document``.
        origin: Where it came from.
        tools: Descriptions of the functions the assistant may call, as the text of a JSON list; "" for none.
        format: The name of the format it was written in, for the report.
        unread: Keys of its record that nothing reads, those inside of messages as ``messages.name``, for the
            report.
    """

    messages: tuple[Message, ...]
    origin: Origin
    tools: str = ""
    format: str = ""
    unread: frozenset[str] = frozenset()


def problem(messages: Sequence[Message]) -> str | None:
    """What is wrong with a conversation, or None.

    A conversation is an optional system message, then user and assistant in turn, starting with the user and
    ending with the assistant. Each has text, but an assistant that calls tools may say nothing beside, and a
    tool may give nothing back. After an assistant's calls tools may speak, one or more, and then the
    assistant again. A document stands alone. Messages are counted from 1, as a reader of the file does.
    """
    if not messages:
        return "the conversation is empty; a sample needs at least a user and an assistant message"
    return _wrong_content(messages) or _wrong_order(messages)


_START = "start"
_FOLLOWERS = MappingProxyType(
    {
        _START: (SYSTEM, USER, DOCUMENT),
        SYSTEM: (USER,),
        USER: (ASSISTANT,),
        ASSISTANT: (USER, TOOL),
        TOOL: (TOOL, ASSISTANT),
        DOCUMENT: (),
    }
)


def _wrong_content(messages: Sequence[Message]) -> str | None:
    for number, message in enumerate(messages, start=1):
        role, content = message.role, message.content
        if role not in _FOLLOWERS:
            known = ", ".join((*ROLES, DOCUMENT))
            return f"message {number} has the unknown role {role!r}; use {known}"
        if message.tool_calls:
            if role != ASSISTANT:
                return f"message {number} ({role}) calls a tool; only an assistant's may"
        elif (not content or content.isspace()) and role != TOOL:
            return f"message {number} ({role}) has no text"
    return None


def _wrong_order(messages: Sequence[Message]) -> str | None:
    before = _START
    for index, message in enumerate(messages):
        role = message.role
        if role not in _FOLLOWERS[before]:
            return _misplaced(messages, index)
        if role == TOOL and before == ASSISTANT and not messages[index - 1].tool_calls:
            return _misplaced(messages, index)
        before = role
    if before not in (ASSISTANT, DOCUMENT):
        return f"the last message must be the assistant's; message {len(messages)} is {before!r}"
    return None


def _misplaced(messages: Sequence[Message], index: int) -> str:
    role, place = messages[index].role, _place(messages, index)
    if role == DOCUMENT or messages[0].role == DOCUMENT:
        return f"a document stands alone; message {place}"
    if role == SYSTEM:
        return f"a system message may only come first; message {index + 1} is 'system'"
    if role == TOOL:
        return f"a tool may only speak after an assistant's tool calls; message {place}"
    return f"roles must alternate user and assistant; message {place}"


def _place(messages: Sequence[Message], index: int) -> str:
    role = messages[index].role
    before = f"after {messages[index - 1].role!r}" if index else "at the start"
    return f"{index + 1} is {role!r} {before}"
