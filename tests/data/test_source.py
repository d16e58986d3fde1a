from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from mftrun.data.sample import Message, Sample
from mftrun.data.source import JsonlFolder, Source
from mftrun.errors import DataError

HUMAN, BOT = {"role": "human", "content": "q"}, {"role": "bot", "content": "a"}


def chat(*rounds):
    return {"id": 1, "chat_rounds": list(rounds)}


def read_one(write_jsonl, line):
    (item,) = JsonlFolder(str(write_jsonl("t/train.jsonl", [line]))).read()
    return item


@pytest.mark.parametrize("roles", [("system", "human", "bot"), ("system", "user", "assistant")])
def test_both_namings_of_roles_give_the_same_messages(write_jsonl, roles):
    rounds = [{"role": role, "content": role[0]} for role in roles]
    sample = read_one(write_jsonl, chat(*rounds))
    assert [message.role for message in sample.messages] == ["system", "user", "assistant"]
    assert sample.messages[0] == Message("system", "s")


def test_origin_counts_blank_lines(write_jsonl):
    path = write_jsonl("t/train.jsonl", [chat(HUMAN, BOT), "", "   ", chat(HUMAN, BOT)])
    assert [(item.origin.path, item.origin.line) for item in JsonlFolder(str(path)).read()] == [
        (str(path), 1),
        (str(path), 4),
    ]


BAD_LINES = {
    "not JSON": (b'{"chat_rounds": [', "not JSON: .* at character 19"),
    "not UTF-8": (b'{"chat_rounds": "\xff"}', "not UTF-8: byte 0xff at byte 18"),
    "NUL": (b'{"chat_\0rounds": []}', "NUL byte at byte 8"),
    "endless number": (b'{"a": ' + b"1" * 5000 + b"}", "not readable as JSON"),
    "deep nesting": (b"[" * 200_000, "not readable as JSON"),
    "a list": ([1], "the line holds a list, not an object"),
    "a number": ("7", "the line holds a number"),
    "no chat_rounds": ({"id": 1, "text": "x"}, "no 'chat_rounds'; the keys of this line are: 'id', 'text'"),
    "nothing": ({}, "no 'chat_rounds'; the keys of this line are: none"),
    "chat_rounds null": ({"chat_rounds": None}, "'chat_rounds' is null, not a list"),
    "chat_rounds object": ({"chat_rounds": {}}, "'chat_rounds' is an object, not a list"),
    "empty conversation": (chat(), "the conversation is empty"),
    "message is text": (chat("hello"), "message 1 is text, not an object"),
    "no role": (chat({"content": "q"}, BOT), "message 1 has no 'role'"),
    "no content": (chat(HUMAN, {"role": "bot"}), "message 2 has no 'content'"),
    "content null": (
        chat(HUMAN, {"role": "bot", "content": None}),
        "'content' of message 2 is null, not text",
    ),
    "content number": (chat({"role": "user", "content": 1.5}, BOT), "'content' of message 1 is a number"),
    "content list": (chat({"role": "user", "content": ["q"]}, BOT), "'content' of message 1 is a list"),
    "role number": (chat({"role": True, "content": "q"}, BOT), "'role' of message 1 is true or false"),
    "unknown role": (
        chat({"role": "tool", "content": "q"}, BOT),
        "message 1 has the unknown role 'tool'; use",
    ),
    "empty answer": (chat(HUMAN, {"role": "bot", "content": " \n"}), r"message 2 \(assistant\) has no text"),
    "empty question": (chat({"role": "user", "content": ""}, BOT), r"message 1 \(user\) has no text"),
    "surrogate": (b'{"chat_rounds": [{"role": "user", "content": "\\ud800"}]}', "half a surrogate pair"),
    "two users": (
        chat(HUMAN, HUMAN, BOT),
        "must alternate user and assistant; message 2 is 'user' after 'user'",
    ),
    "two answers": (chat(HUMAN, BOT, BOT), "message 3 is 'assistant' after 'assistant'"),
    "starts with bot": (chat(BOT, HUMAN), "message 1 is 'assistant' at the start"),
    "late system": (chat(HUMAN, {"role": "system", "content": "s"}, BOT), "may only come first; message 2"),
    "two systems": (
        chat(*[{"role": "system", "content": "s"}] * 2, HUMAN, BOT),
        "may only come first; message 2",
    ),
    "ends with human": (
        chat(HUMAN, BOT, HUMAN),
        "the last message must be the assistant's; message 3 is 'user'",
    ),
    "only system": (chat({"role": "system", "content": "s"}), "the last message must be the assistant's"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_bad_line_is_yielded_with_its_place_and_reading_goes_on(write_jsonl, line, message):
    path = write_jsonl("t/train.jsonl", [chat(HUMAN, BOT), line, chat(HUMAN, BOT)])
    first, error, last = JsonlFolder(str(path)).read()
    assert isinstance(first, Sample)
    assert isinstance(last, Sample)
    assert isinstance(error, DataError)
    assert (error.path, error.line) == (str(path), 2)
    with pytest.raises(DataError, match=message):
        raise error


def test_byte_order_mark_and_carriage_returns_are_no_part_of_a_line(write_jsonl):
    line = json.dumps(chat(HUMAN, BOT)).encode()
    path = write_jsonl("t/train.jsonl", [b"\xef\xbb\xbf" + line + b"\r", line])
    assert all(isinstance(item, Sample) for item in JsonlFolder(str(path)).read())


def test_last_line_needs_no_newline(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(chat(HUMAN, BOT)))
    assert len(list(JsonlFolder(str(path)).read())) == 1


def test_folder_is_read_recursively_in_order_and_without_hidden_or_other_files(write_jsonl, tmp_path):
    for name in ("t/b.jsonl", "t/a/z.jsonl", "t/.ipynb_checkpoints/b.jsonl", "t/.c.jsonl", "t/notes.txt"):
        write_jsonl(name, [chat(HUMAN, BOT)])
    found = [item.origin.path for item in JsonlFolder(str(tmp_path / "t")).read()]
    assert found == [str(tmp_path / "t/a/z.jsonl"), str(tmp_path / "t/b.jsonl")]


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        list(JsonlFolder(str(tmp_path / "nowhere")).read())


@pytest.mark.parametrize("name", ["t/notes.txt", "t/data.json"])
def test_folder_without_jsonl_and_a_file_of_another_kind(write_jsonl, name):
    path = write_jsonl(name, ["x"])
    for given in (path, path.parent):
        with pytest.raises(DataError, match=f"{given}: no .jsonl file here"):
            list(JsonlFolder(str(given)).read())


def test_empty_file_alone_is_refused_at_once(write_jsonl):
    path = write_jsonl("t/train.jsonl", [])
    with pytest.raises(DataError, match=r"train\.jsonl: the file is empty"):
        list(JsonlFolder(str(path)).read())
    with pytest.raises(DataError, match=r"all \.jsonl files are empty"):
        list(JsonlFolder(str(write_jsonl("t/other.jsonl", []).parent)).read())


@pytest.mark.parametrize("lines", [[], ["", "  "]])
def test_empty_file_among_others_is_a_bad_item(write_jsonl, lines):
    empty = write_jsonl("t/a.jsonl", lines)
    folder = write_jsonl("t/b.jsonl", [chat(HUMAN, BOT)]).parent
    error, sample = JsonlFolder(str(folder)).read()
    assert str(error) == f"{empty}: the file is empty"
    assert isinstance(sample, Sample)


def test_unreadable_file(write_jsonl, monkeypatch):
    path = write_jsonl("t/a.jsonl", [chat(HUMAN, BOT)])

    def refused(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        list(JsonlFolder(str(path)).read())


def test_fingerprint_changes_with_the_content_and_not_otherwise(write_jsonl):
    source = JsonlFolder(str(write_jsonl("t/a.jsonl", [chat(HUMAN, BOT)])))
    before = source.fingerprint()
    assert source.fingerprint() == before
    write_jsonl("t/a.jsonl", [chat(HUMAN, BOT), chat(HUMAN, BOT)])
    assert source.fingerprint() != before
    assert isinstance(source, Source)


def test_home_folder_is_expanded(write_jsonl, tmp_path, monkeypatch):
    write_jsonl("t/a.jsonl", [chat(HUMAN, BOT)])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(list(JsonlFolder("~/t").read())) == 1


def test_files_that_are_nearly_read_are_named_and_linked_folders_are_read(write_jsonl, tmp_path, caplog):
    line = {"chat_rounds": [{"role": "user", "content": "q"}, {"role": "bot", "content": "a"}]}
    write_jsonl("task/a.jsonl", [line])
    for name in ("b.jsonl.gz", "c.JSONL"):
        write_jsonl(f"task/{name}", [line])
    write_jsonl("elsewhere/d.jsonl", [line])
    (tmp_path / "task" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "task" / "linked_to_itself").symlink_to(tmp_path / "task")
    found = JsonlFolder(str(tmp_path / "task")).files()
    assert [file.name for file in found] == ["a.jsonl", "d.jsonl"]
    assert "b.jsonl.gz, c.JSONL" in caplog.text
