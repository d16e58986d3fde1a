from __future__ import annotations

import gzip
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from mftrun.data.compression import gzipped, plain, zstandardized
from mftrun.data.files import Files
from mftrun.data.readers import JsonLines, JsonList, Parquet
from mftrun.data.recognition import AnyFormat
from mftrun.data.sample import Message, Sample
from mftrun.data.source import read
from mftrun.errors import DataError

PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
UNPACK = {"": plain, ".gz": gzipped, ".zst": zstandardized}
HUMAN, BOT = {"role": "human", "content": "q"}, {"role": "bot", "content": "a"}


def chat(*rounds):
    return {"id": 1, "chat_rounds": list(rounds)}


def document(number):
    return {"text": f"document {number}"}


def noise(number):
    return number * 2654435761 % 2**32


def texts(items):
    return [item.messages[0].content for item in items]


def places(items):
    return [item.origin.line for item in items]


def items_of(reader, path):
    """All items of a file, as a worker sees them, and their chunks."""
    chunks = [pickle.loads(pickle.dumps(chunk)) for chunk in reader.chunks(path, AnyFormat())]
    return [item for chunk in chunks for item in chunk.items()], chunks


# Lines

BAD_LINES = {
    "not JSON": (b'{"chat_rounds": [', "not JSON: .* at character 18"),
    "not UTF-8": (b'{"chat_rounds": "\xff"}', "not UTF-8: byte 0xff at byte 18"),
    "NUL": (b'{"chat_\0rounds": []}', "NUL byte at byte 8"),
    "endless number": (b'{"a": ' + b"1" * 5000 + b"}", "not readable as JSON"),
    "deep nesting": (b"[" * 200_000, "not readable as JSON"),
    "a list": ([1], r"holds a list, not an object .*; a file that is one list is named \*\.json"),
    "a number": ("7", "holds a number, not an object"),
    "null": ("null", "holds null, not an object"),
    "nothing known": (
        {"id": 1, "txt": "x"},
        r"no known format \(its keys are: 'id', 'txt'\); known: chat_rounds",
    ),
    "nothing": ({}, r"no known format \(its keys are: none\)"),
    "empty conversation": (chat(), "the conversation is empty"),
    "empty answer": (chat(HUMAN, {"role": "bot", "content": " \n"}), r"message 2 \(assistant\) has no text"),
    "empty question": ({"prompt": "", "answer": "a"}, r"message 1 \(user\) has no text"),
    "empty document": ({"text": "\n"}, r"message 1 \(document\) has no text"),
    "surrogate": (b'{"chat_rounds": [{"role": "user", "content": "\\ud800"}]}', "half a surrogate pair"),
    "two users": (chat(HUMAN, HUMAN, BOT), "must alternate user and assistant; message 2"),
    "ends with human": (chat(HUMAN, BOT, HUMAN), "the last message must be the assistant's"),
    "a document in a chat": (chat({"role": "document", "content": "x"}), "unknown role 'document'"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_bad_line_is_yielded_with_its_place_and_reading_goes_on(write_jsonl, line, message):
    path = write_jsonl("t/train.jsonl", [chat(HUMAN, BOT), line, chat(HUMAN, BOT)])
    (first, error, last), _ = items_of(JsonLines(plain), path)
    assert isinstance(first, Sample)
    assert isinstance(last, Sample)
    assert isinstance(error, DataError)
    assert (error.path, error.line) == (str(path), 2)
    with pytest.raises(DataError, match=message):
        raise error


def test_formats_may_be_mixed_in_a_file(write_jsonl):
    lines = [chat(HUMAN, BOT), document(1), {"prompt": "q", "answer": "a"}, {"messages": []}]
    items = list(read(Files(str(write_jsonl("t/a.jsonl", lines)))))
    assert [item.format for item in items[:3]] == ["chat_rounds", "text", "prompt/answer"]
    assert "the conversation is empty" in str(items[3])
    items = list(read(Files(str(write_jsonl("t/a.jsonl", lines)), format="text")))
    assert [isinstance(item, Sample) for item in items] == [False, True, False, False]
    assert "no 'text'; the keys are: 'id', 'chat_rounds'" in str(items[0])


def test_byte_order_mark_blank_lines_and_carriage_returns_are_no_part_of_a_line(write_jsonl):
    line = json.dumps(document(1)).encode()
    path = write_jsonl("t/train.jsonl", [b"\xef\xbb\xbf" + line + b"\r", b"", b" \t\r", line])
    items, _ = items_of(JsonLines(plain), path)
    assert texts(items) == ["document 1"] * 2
    assert places(items) == [1, 4]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_lines_are_numbered_whatever_the_block(tmp_path, kind, block, end):
    path = tmp_path / f"a.jsonl{kind}"
    lines = [b"" if number % 3 == 0 else json.dumps(document(number)).encode() for number in range(1, 60)]
    path.write_bytes(PACK[kind](b"\n".join(lines) + end))
    items, chunks = items_of(JsonLines(UNPACK[kind], block), path)
    assert places(items) == [number for number in range(1, 60) if number % 3]
    assert texts(items) == [f"document {number}" for number in places(items)]
    assert {item.origin.path for item in items} == {str(path)}
    assert len(chunks) > 1 or block == 1 << 20
    assert sum(chunk.size for chunk in chunks) == path.stat().st_size


def test_a_line_much_longer_than_a_block_is_read(tmp_path):
    text = "x" * 50_000_000
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(document(1))}\n{json.dumps({'text': text})}\n{json.dumps(document(3))}")
    chunks = list(JsonLines(plain).chunks(path, AnyFormat()))
    first, long, last = (item for chunk in chunks for item in chunk.items())
    assert long.messages == (Message("document", text),)
    assert places([first, long, last]) == [1, 2, 3]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("content", [b"\n", b" \n \n"])
def test_a_blank_file_is_a_bad_item(tmp_path, kind, name, content):
    path = tmp_path / f"{name}{kind}"
    path.write_bytes(PACK[kind](content))
    (chunk,) = list(Files(str(path)).chunks())[-1:]
    (error,) = pickle.loads(pickle.dumps(chunk)).items()
    assert str(error) == f"{path}: the file is empty"
    assert len(list(read(Files(str(path))))) == 1


# Compression


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("kind", [".gz", ".zst"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_file_that_is_cut_short_is_refused(tmp_path, name, kind, share):
    lines = [json.dumps(document(number) | {"noise": noise(number)}) for number in range(5000)]
    whole = PACK[kind]("\n".join(lines).encode())
    path = tmp_path / f"{name}{kind}"
    path.write_bytes(whole[: max(3, int(share * len(whole)))])
    with pytest.raises(DataError, match="is damaged or cut short: ") as caught:
        list(read(Files(str(path))))
    assert "(after" not in str(caught.value)  # less than a block: nothing has been read


@pytest.mark.parametrize(("reader", "unit"), [(JsonLines, "line"), (JsonList, "entry")])
def test_of_a_damaged_file_the_place_is_told_as_far_as_it_is_known(tmp_path, reader, unit):
    path = tmp_path / "a.gz"
    lines = [json.dumps(document(number) | {"noise": noise(number)}) for number in range(5000)]
    path.write_bytes(gzip.compress("\n".join(lines).encode())[:-100])
    with pytest.raises(DataError, match=rf"is damaged or cut short: .* \(after {unit} [\d,]{{3,}}"):
        list(reader(gzipped, 256).chunks(path, AnyFormat()))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.zst"])
@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-32"])
@pytest.mark.parametrize("order", ["LE", "BE"])
def test_a_file_in_another_encoding_is_named(tmp_path, name, encoding, order):
    path = tmp_path / name
    text = "\ufeff" + json.dumps(document(1)) + "\n"
    path.write_bytes(PACK[path.suffix if path.suffix in PACK else ""](text.encode(f"{encoding}-{order}")))
    with pytest.raises(DataError, match=f"is {encoding}; convert it to UTF-8: iconv -f {encoding} -t UTF-8"):
        list(read(Files(str(path))))


@pytest.mark.parametrize("kind", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["middle", "not compressed", "rest"])
def test_a_damaged_file_is_refused(tmp_path, kind, damage):
    content = "\n".join(json.dumps(document(number)) for number in range(20_000)).encode()
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(content) if kind == ".zst" else None
    packed = bytearray(packed or gzip.compress(content))
    if damage == "middle":
        packed[len(packed) // 2] ^= 0xFF
    path = tmp_path / f"a.jsonl{kind}"
    path.write_bytes({"middle": packed, "not compressed": content, "rest": packed + b"garbage"}[damage])
    with pytest.raises(DataError, match="is damaged or cut short"):
        list(read(Files(str(path))))


@pytest.mark.parametrize("kind", [".gz", ".zst"])
def test_files_put_one_after_the_other_are_read_whole(tmp_path, kind):
    path = tmp_path / f"a.jsonl{kind}"
    parts = [json.dumps(document(number)).encode() + b"\n" for number in range(3)]
    path.write_bytes(b"".join(PACK[kind](part) for part in parts) + PACK[kind](b""))
    assert texts(read(Files(str(path)))) == ["document 0", "document 1", "document 2"]


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    for name in ("a.jsonl", "a.json.gz", "a.parquet"):
        path = tmp_path / name
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
        with pytest.raises(DataError, match="only a pointer of Git LFS is here"):
            list(read(Files(str(path))))


# JSON


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("block", [1, 40, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_read_entry_by_entry(tmp_path, kind, block, indent):
    path = tmp_path / f"a.json{kind}"
    path.write_bytes(
        PACK[kind](json.dumps([document(number) for number in range(1, 40)], indent=indent).encode())
    )
    items, chunks = items_of(JsonList(UNPACK[kind], block), path)
    assert places(items) == list(range(1, 40))
    assert texts(items) == [f"document {number}" for number in places(items)]
    assert len(chunks) > 1 or block == 1 << 20


@pytest.mark.parametrize(
    "content",
    ['{"text": "a"}', '\n{\n"text":\r\n"a"}\n', '[{"text": "a"}]', '\ufeff[{"text": "a"}]\n'],
)
def test_one_object_or_a_list_of_one(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    assert texts(read(Files(str(path)))) == ["a"]


def test_json_lines_under_a_wrong_name(write_jsonl):
    path = write_jsonl("t/a.json", [document(1), "", document(2), document(3)])
    items = list(read(Files(str(path))))
    assert texts(items) == ["document 1", "document 2", "document 3"]
    assert places(items) == [1, 2, 3]


def test_bad_entries_of_a_list_are_yielded_with_their_number(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([document(1), 7, "x", {"text": None}, {"text": "\ud800"}, document(6)]))
    items = list(read(Files(str(path))))
    assert [isinstance(item, Sample) for item in items] == [True, False, False, False, False, True]
    assert [item.line for item in items[1:5]] == [2, 3, 4, 5]
    said = ["holds a number", "holds text", "'text' is null", "surrogate"]
    assert [word in str(item) for word, item in zip(said, items[1:5], strict=True)] == [True] * 4


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b'[{"text": "a"}, {"text"}]', 2, "not JSON: Expecting ':' delimiter at character 24"),
        (b'[{"text": "a"} {"text": "b"}]', 2, "not JSON: Expecting ',' or ']' at character 16"),
        (b'[{"text": "a"}', 2, "not JSON: the list does not end"),
        (b'[{"text": "a"},', 2, "not JSON: Expecting value at character 16"),
        (b'[{"text": "a"},]', 2, "not JSON: Expecting value at character 16"),
        (b'[{"text": "a"}] {"text": "b"}', 2, r"more after the end of the list; name .* \*\.jsonl"),
        (b'{"text": "a"}]', 2, "']' without a list"),
        (b'{"text": "a', 1, "not JSON: Unterminated string"),
        (b'["a\nb"]', 1, "not JSON: Invalid control character at"),
        (b'[{"text": "\xff"}]', 1, "not UTF-8: byte 0xff"),
        (b'[{"text": "a"}, {"text": "\xe2\x82', 2, "not UTF-8: byte 0xe2"),
        (b'[{"text": "a\0"}]', 1, "not JSON: Invalid control character at"),
        (b"[" * 200_000, 1, "not JSON: maximum recursion"),
        (b"[" + b"1" * 5000 + b"]", 1, "not JSON: Exceeds the limit"),
        (b"\xff[", 1, "not UTF-8"),
    ],
)
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_a_damaged_list_is_refused_with_its_place(tmp_path, content, line, said, block):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        list(JsonList(plain, block).chunks(path, AnyFormat()))
    assert caught.value.path == str(path)
    assert caught.value.line == line
    assert "nothing after it can be read" in str(caught.value)


def test_damage_at_the_beginning_is_found_without_reading_the_rest(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"text" "a"}, ' + b" " * 100_000 + b"]")
    sizes = []
    with pytest.raises(DataError, match="Expecting ':' delimiter at character 10"):
        for _ in JsonList(_watched(sizes), 256).chunks(path, AnyFormat()):
            pass
    assert sum(sizes) <= 1024


def _watched(sizes):
    class Watched:
        def __init__(self, raw):
            self._raw = raw

        def peek(self, size):
            return self._raw.peek(size)

        def read(self, size):
            sizes.append(size)
            return self._raw.read(size)

    return Watched


def test_a_long_entry_is_read_with_few_attempts(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "x" * 1_000_000}]))
    sizes = []
    (chunk,) = JsonList(_watched(sizes), 64).chunks(path, AnyFormat())
    assert len(next(chunk.items()).messages[0].content) == 1_000_000
    assert len(sizes) < 30


# Parquet


def test_rows_of_a_table_are_read_and_nulls_are_absent(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a", "weight": 0.5},
            ]
        },
        {"prompt": "p", "answer": "r", "system": "s"},
        {"prompt": "p"},
        {"text": "d", "other": b"\x00"},
        {
            "messages": [
                {"role": "user", "content": "q"},
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
                    "train": False,
                },
            ],
            "tools": [{"name": "f", "parameters": {"type": "object"}}],
        },
    ]
    keys = sorted({key for row in rows for key in row})
    table = pa.table({key: pa.array([row.get(key) for row in rows]) for key in keys})
    pq.write_table(table, path)
    chat_item, pair, error, text, call = read(Files(str(path)))
    assert chat_item.messages == (Message("user", "q"), Message("assistant", "a", 0.5))
    assert [message.role for message in pair.messages] == ["system", "user", "assistant"]
    assert "'answer' is null, not text" in str(error)
    assert (error.path, error.line) == (str(path), 3)
    assert (text.format, text.origin.line) == ("text", 4)
    assert call.messages[1].tool_calls[0].arguments == '{"a": 1}'
    assert call.messages[1].weight == 0
    assert json.loads(call.tools) == [{"name": "f", "parameters": {"type": "object"}}]


def test_large_tables_are_read_in_batches_of_the_columns_that_matter(tmp_path):
    path = tmp_path / "a.parquet"
    numbers = range(1, 2001)
    columns = {"text": [f"document {number}" for number in numbers], "noise": [b"x" * 500] * len(numbers)}
    pq.write_table(pa.table(columns), path, row_group_size=700)
    items, chunks = items_of(Parquet(block=4096), path)
    assert texts(items) == [f"document {number}" for number in numbers]
    assert places(items) == list(numbers)
    assert len(chunks) > 5
    assert max(len(chunk.data) for chunk in chunks) < 10_000
    assert not any(b"noise" in chunk.data for chunk in chunks)
    assert sum(chunk.size for chunk in chunks) == path.stat().st_size == Files(str(path)).size()


def test_columns_that_no_format_knows_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"query_text": ["x"], "system": ["y"]}), path)
    (error,) = read(Files(str(path)))
    assert "no known format (its keys are: 'query_text', 'system')" in str(error)


def test_values_that_are_no_json_values_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([0], pa.timestamp("s")), "id": [1]}), path)
    (error,) = read(Files(str(path)))
    assert "'text' is a datetime, not text" in str(error)


def test_a_table_without_rows(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    (error,) = read(Files(str(path)))
    assert str(error) == f"{path}: the file is empty"


@pytest.mark.parametrize("damage", ["cut", "other", "middle"])
def test_a_damaged_table_is_refused(tmp_path, damage):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"document {noise(number)}" for number in range(5000)]}), path)
    content = bytearray(path.read_bytes())
    content[200:2000] = b"\xff" * 1800
    path.write_bytes({"cut": content[:-100], "other": b"PK" * 99, "middle": bytes(content)}[damage])
    with pytest.raises(DataError, match=r"is no Parquet file, or is damaged: "):
        list(read(Files(str(path))))


def test_columns_that_are_not_read_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["p"], "answer": ["a"], "id": [1], "text": ["t"]}), path)
    (sample,), (chunk,) = items_of(Parquet(), path)
    assert sample.unread == {"id", "text"}
    assert chunk.unread == {"id"}


def test_columns_of_a_table_may_be_renamed(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"question_text": ["p"], "prompt": [3], "reply": ["a"], "id": [1]}), path)
    (sample,) = read(Files(str(path), columns={"prompt": "question_text", "answer": "reply"}))
    assert [message.content for message in sample.messages] == ["p", "a"]
    assert sample.unread == {"id", "prompt"}
    (error,) = read(Files(str(path), columns={"prompt": "question", "answer": "reply"}))
    assert "no 'question', which data.tasks.NAME.columns.prompt names; the keys are: 'question_text'" in str(
        error
    )
