from __future__ import annotations

import pytest

from mftrun.data.sample import Message, ToolCall, problem

LETTERS = {"s": "system", "u": "user", "a": "assistant", "c": "assistant", "t": "tool", "d": "document"}
CALLS = (ToolCall("f", "{}"),)


def conversation(roles):
    return [Message(LETTERS[r], "" if r == "c" else "x", 1.0, CALLS if r == "c" else ()) for r in roles]


@pytest.mark.parametrize("roles", ["ua", "sua", "uaua", "ucta", "uc", "uctttcta", "suctaua", "d", "ucua"])
def test_good(roles):
    assert problem(conversation(roles)) is None


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ("", "the conversation is empty"),
        ("uua", "roles must alternate user and assistant; message 2 is 'user' after 'user'"),
        ("uaa", "message 3 is 'assistant' after 'assistant'"),
        ("au", "message 1 is 'assistant' at the start"),
        ("sa", "message 2 is 'assistant' after 'system'"),
        ("usa", "a system message may only come first; message 2 is 'system'"),
        ("ssua", "a system message may only come first; message 2 is 'system'"),
        ("uau", "the last message must be the assistant's; message 3 is 'user'"),
        ("s", "the last message must be the assistant's; message 1 is 'system'"),
        ("uct", "the last message must be the assistant's; message 3 is 'tool'"),
        (
            "uata",
            "a tool may only speak after an assistant's tool calls; message 3 is 'tool' after 'assistant'",
        ),
        ("uta", "a tool may only speak after an assistant's tool calls; message 2 is 'tool' after 'user'"),
        ("tua", "a tool may only speak after an assistant's tool calls; message 1 is 'tool' at the start"),
        ("uctua", "roles must alternate user and assistant; message 4 is 'user' after 'tool'"),
        ("dd", "a document stands alone; message 2 is 'document' after 'document'"),
        ("da", "a document stands alone; message 2 is 'assistant' after 'document'"),
        ("uda", "a document stands alone; message 2 is 'document' after 'user'"),
    ],
)
def test_wrong_order(roles, said):
    assert said in problem(conversation(roles))


@pytest.mark.parametrize("text", ["", " \n\t", "\u3000"])
@pytest.mark.parametrize(("roles", "index"), [("sua", 0), ("sua", 1), ("sua", 2), ("d", 0), ("uctuca", 4)])
def test_a_message_without_text(roles, index, text):
    turns = conversation(roles)
    turns[index] = Message(turns[index].role, text)
    assert problem(turns) == f"message {index + 1} ({turns[index].role}) has no text"


def test_a_tool_may_give_nothing_back():
    turns = conversation("ucta")
    turns[2] = Message("tool", "")
    assert problem(turns) is None


def test_only_the_assistant_calls_tools_and_roles_are_known():
    turns = conversation("ua")
    turns[0] = Message("user", "x", tool_calls=CALLS)
    assert problem(turns) == "message 1 (user) calls a tool; only an assistant's may"
    turns[0] = Message("human", "x")
    assert "message 1 has the unknown role 'human'; use system, user" in problem(turns)
