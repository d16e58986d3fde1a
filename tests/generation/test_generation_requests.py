"""Prompts from files: every format of training, and plain lines; what is wrong is named by its line."""

import logging

import pytest

from mftrun.errors import ConfigError, DataError
from mftrun.generation.requests import given_requests, read_requests


def turns(request):
    return [(message.role, message.content) for message in request.messages]


ASKED = [("user", "a?")]
HISTORY = [("user", "a?"), ("assistant", "b"), ("user", "c?")]
LISTED = [{"role": role, "content": content} for role, content in HISTORY]
RECORDS = [
    ({"prompt": "a?"}, [("document", "a?")]),
    ({"prompt": "a?", "answer": "b"}, [("document", "a?")]),
    ({"prompt": "a?", "completion": None, "id": 7}, [("document", "a?")]),
    ({"text": "a?"}, [("document", "a?")]),
    ({"system": "s", "prompt": "a?"}, [("system", "s"), ("document", "a?")]),
    ({"instruction": "a?", "input": "with"}, [("document", "a?\nwith")]),
    ({"instruction": "c?", "input": "", "output": "d", "history": [["a?", "b"]]}, HISTORY),
    ({"question": "a?"}, [("document", "a?")]),
    ({"query": "a?"}, [("document", "a?")]),
    ({"input": "a?"}, [("document", "a?")]),
    ({"messages": LISTED}, HISTORY),
    ({"messages": [*LISTED, {"role": "assistant", "content": "d"}]}, HISTORY),
    ({"messages": LISTED[:1]}, ASKED),
    ({"prompt": LISTED}, HISTORY),
    ({"chat_rounds": [{"role": "human", "content": "a?"}, {"role": "bot", "content": "b"}]}, ASKED),
    ({"conversations": [{"from": "human", "value": "a?"}]}, ASKED),
]


@pytest.mark.parametrize(("record", "expected"), RECORDS, ids=[str(n) for n in range(len(RECORDS))])
def test_records(jsonl, record, expected):
    path = jsonl("p.jsonl", ["", record])
    (request,) = read_requests(str(path), "error")
    assert turns(request) == expected
    assert request.origin == f"{path}:2"


def test_tools_come_along(jsonl):
    (request,) = read_requests(
        str(jsonl("p.jsonl", [{"messages": LISTED, "tools": [{"name": "f"}]}])), "error"
    )
    assert request.tools == '[{"name": "f"}]'


def test_lines_of_text(jsonl):
    path = jsonl("p.txt", ["one", "  ", " two "])
    assert [(turns(one), one.origin) for one in read_requests(str(path), "error")] == [
        ([("document", "one")], f"{path}:1"),
        ([("document", " two ")], f"{path}:3"),
    ]


BAD = ["no json", {"id": 1}, {"messages": []}, {"prompt": ""}, {"messages": [*LISTED, LISTED[0]]}]


@pytest.mark.parametrize("bad", BAD, ids=["json", "keys", "empty", "no text", "order"])
def test_bad_lines(jsonl, bad, caplog):
    path = jsonl("p.jsonl", [{"prompt": "a?"}, bad, {"prompt": "b?"}])
    with pytest.raises(DataError) as caught:
        read_requests(str(path), "error")
    assert (caught.value.path, caught.value.line) == (str(path), 2)
    with caplog.at_level(logging.WARNING):
        assert len(read_requests(str(path), "skip")) == 2
    assert "1 bad lines left out" in caplog.text


def test_files_that_hold_no_prompt(jsonl, tmp_path):
    for path in (tmp_path / "none.jsonl", jsonl("p.csv", ["a"])):
        with pytest.raises(ConfigError) as caught:
            read_requests(str(path), "error")
        assert caught.value.key == "prompts"
    with pytest.raises(DataError, match="no prompt"):
        read_requests(str(jsonl("p.txt", [" "])), "error")


def test_prompts_of_the_command_line():
    assert [one.origin for one in given_requests(["a", "b"])] == ["prompt 1", "prompt 2"]
    for wrong in ("", " ", [], ["a", ""]):
        with pytest.raises(ConfigError):
            given_requests(wrong)
