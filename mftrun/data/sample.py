"""A sample: one conversation and the place in the file it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES = (SYSTEM, USER, ASSISTANT)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        content: The text of the turn.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sample came from.

    Attributes:
        path: The file.
        line: Line in the file from 1; 0 when the sample was made.
    """

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


@dataclass(frozen=True, slots=True)
class Sample:
    """One valid conversation.

    Attributes:
        messages: The turns, as `problem` accepts them.
        origin: Where it came from.
    """

    messages: tuple[Message, ...]
    origin: Origin


def problem(messages: Sequence[Message]) -> str | None:
    """What is wrong with a conversation, or None.

    A conversation is an optional system message, then user and assistant in turn, starting with the user and
    ending with the assistant, each with text. Messages are counted from 1, as a reader of the file does.
    """
    if not messages:
        return "the conversation is empty; a sample needs at least a user and an assistant message"
    return _empty_content(messages) or _wrong_order(messages)


def _empty_content(messages: Sequence[Message]) -> str | None:
    for number, message in enumerate(messages, start=1):
        if message.role not in ROLES:
            return f"message {number} has the unknown role {message.role!r}; use {', '.join(ROLES)}"
        if not message.content.strip():
            return f"message {number} ({message.role}) has no text"
    return None


def _wrong_order(messages: Sequence[Message]) -> str | None:
    start = 1 if messages[0].role == SYSTEM else 0
    for index in range(start, len(messages)):
        role = messages[index].role
        if role == SYSTEM:
            return f"a system message may only come first; message {index + 1} is 'system'"
        if role != (USER, ASSISTANT)[(index - start) % 2]:
            return f"roles must alternate user and assistant; message {_place(messages, index)}"
    if messages[-1].role != ASSISTANT:
        return f"the last message must be the assistant's; message {len(messages)} is {messages[-1].role!r}"
    return None


def _place(messages: Sequence[Message], index: int) -> str:
    role = messages[index].role
    before = f"after {messages[index - 1].role!r}" if index else "at the start"
    return f"{index + 1} is {role!r} {before}"
