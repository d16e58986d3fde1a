from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from mftrun.data.files import Files
from mftrun.data.sample import Message, Sample
from mftrun.data.source import Source, read
from mftrun.errors import ConfigError, DataError
from mftrun.jobs.sources import task_sources
from mftrun.schema import TaskConfig

LINE = {"chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a"}]}


def names(path):
    return [file.name for file in Files(str(path)).files()]


def test_files_are_a_source(write_jsonl):
    path = write_jsonl("t/a.jsonl", [LINE, "", LINE])
    source = Files(str(path))
    assert isinstance(source, Source)
    assert source.size() == path.stat().st_size == sum(chunk.size for chunk in source.chunks())
    items = list(read(source))
    assert [(item.origin.path, item.origin.line) for item in items] == [(str(path), 1), (str(path), 3)]
    assert items[0].messages == (Message("user", "q"), Message("assistant", "a"))
    assert list(read(source)) == items


def test_chunks_are_read_when_they_are_asked_for(write_jsonl):
    folder = write_jsonl("t/a.jsonl", [LINE]).parent
    gone = write_jsonl("t/b.jsonl", [LINE])
    chunks = Files(str(folder)).chunks()
    assert isinstance(next(next(chunks).items()), Sample)
    gone.unlink()
    with pytest.raises(DataError, match=r"b\.jsonl: cannot be read: No such file"):
        next(chunks)


def test_several_kinds_of_files_in_a_folder_are_read_in_order(write_jsonl, tmp_path):
    for name in ("t/b.jsonl", "t/a/z.json", "t/.ipynb_checkpoints/b.jsonl", "t/.c.jsonl", "t/notes.txt"):
        write_jsonl(name, [LINE])
    found = [item.origin.path for item in read(Files(str(tmp_path / "t")))]
    assert found == [str(tmp_path / "t/a/z.json"), str(tmp_path / "t/b.jsonl")]


def test_globs(write_jsonl, tmp_path):
    for name in (
        "t/a.jsonl",
        "t/b.json",
        "t/deep/er/c.jsonl",
        "t/deep/.d.jsonl",
        "t/note.txt",
        "u[1]/e.jsonl",
    ):
        write_jsonl(name, [LINE])
    assert names(tmp_path / "t/*.jsonl") == ["a.jsonl"]
    assert names(tmp_path / "t/*") == ["a.jsonl", "b.json", "c.jsonl"]
    assert names(tmp_path / "**/*.jsonl") == ["a.jsonl", "c.jsonl", "e.jsonl"]
    assert names(tmp_path / "t/**") == ["a.jsonl", "b.json", "c.jsonl"]
    assert names(tmp_path / "t/[ab].json*") == ["a.jsonl", "b.json"]
    assert names(tmp_path / "u[1]") == ["e.jsonl"]  # there is such a folder


def test_what_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"nowhere: no such file or folder$"):
        Files(str(tmp_path / "nowhere")).files()
    with pytest.raises(DataError, match=r"\*\.jsonl: no file matches"):
        Files(str(tmp_path / "*.jsonl")).size()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no such file or folder; .*data\.tasks\.NAME\.dataset=owner/na-me"):
        list(Files("owner/na-me").chunks())


@pytest.mark.parametrize("name", ["t/notes.txt", "t/data.csv"])
def test_files_of_another_kind(write_jsonl, name):
    path = write_jsonl(name, ["x"])
    for given in (path, path.parent, path.parent / "*"):
        with pytest.raises(DataError) as caught:
            Files(str(given)).files()
        assert str(caught.value).startswith(
            f"{given}: no file with samples here; their names end in .jsonl, "
        )


def test_an_empty_file_alone_is_refused_at_once(write_jsonl):
    path = write_jsonl("t/train.jsonl", [])
    with pytest.raises(DataError, match=r"train\.jsonl: the file is empty"):
        list(read(Files(str(path))))
    folder = write_jsonl("t/other.json", []).parent
    with pytest.raises(DataError, match="all files are empty"):
        list(read(Files(str(folder))))


@pytest.mark.parametrize("lines", [[], ["", "  "]])
def test_an_empty_file_among_others_is_a_bad_item(write_jsonl, lines):
    empty = write_jsonl("t/a.jsonl", lines)
    error, sample = read(Files(str(write_jsonl("t/b.jsonl", [LINE]).parent)))
    assert str(error) == f"{empty}: the file is empty"
    assert isinstance(sample, Sample)


def test_an_unreadable_file_or_folder(write_jsonl, monkeypatch):
    path = write_jsonl("t/a.jsonl", [LINE])
    refusal = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))

    def refused(*_, **__):
        raise refusal

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused)
        chunks = Files(str(path)).chunks()
        with pytest.raises(DataError, match=r"a\.jsonl: cannot be read: Permission denied"):
            next(chunks)
    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match="t: cannot be read: Permission denied"):
        Files(str(path.parent)).files()


def test_fingerprint_changes_with_content_and_format_and_not_otherwise(write_jsonl):
    path = write_jsonl("t/a.jsonl", [LINE])
    before = Files(str(path)).fingerprint()
    assert Files(str(path.parent)).fingerprint() == before
    assert Files(str(path), format="chat_rounds").fingerprint() != before
    write_jsonl("t/a.jsonl", [LINE, LINE])
    assert Files(str(path)).fingerprint() != before
    assert all(isinstance(value, str | int | None) for value in before.values())


def test_an_unknown_format_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"data\.tasks\.NAME\.format"):
        Files("x", format="sharegpt4")


def test_home_folder_is_expanded(write_jsonl, tmp_path, monkeypatch):
    write_jsonl("t/a.jsonl", [LINE])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("~/t") == names("~/t/*.jsonl") == ["a.jsonl"]


def test_files_that_are_nearly_read_are_named_and_linked_folders_are_read(write_jsonl, tmp_path, caplog):
    write_jsonl("task/a.jsonl", [LINE])
    for name in ("b.jsonl.bz2", "c.JSONL", "d.parquet.tmp", "readme.md"):
        write_jsonl(f"task/{name}", [LINE])
    write_jsonl("elsewhere/d.jsonl", [LINE])
    (tmp_path / "task" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "task" / "linked_to_itself").symlink_to(tmp_path / "task")
    assert names(tmp_path / "task") == ["a.jsonl", "d.jsonl"]
    assert "b.jsonl.bz2, c.JSONL, d.parquet.tmp" in caplog.text
    assert "readme" not in caplog.text
    assert "read once" not in caplog.text  # nothing was found again through the link to itself


def test_a_file_is_read_once_however_often_it_is_found(write_jsonl, tmp_path, caplog):
    path = write_jsonl("task/b/a.jsonl", [LINE])
    assert names(tmp_path / "task/**/*") == ["a.jsonl"]  # itself, and below its folder
    assert not caplog.text
    (tmp_path / "task" / "z.jsonl").symlink_to(path)
    assert names(tmp_path / "task") == ["a.jsonl"]
    assert f"z.jsonl: the same file as {path}; read once" in caplog.text


def test_what_may_be_the_same_data_twice_is_named(write_jsonl, tmp_path, caplog):
    for name in ("a.jsonl", "a.json", "b.jsonl"):
        write_jsonl(f"task/{name}", [LINE])
    assert names(tmp_path / "task") == ["a.json", "a.jsonl", "b.jsonl"]
    assert "a.json and a.jsonl: both are read; do they hold the same samples?" in caplog.text


def test_a_link_to_nothing_is_refused(write_jsonl, tmp_path):
    write_jsonl("task/a.jsonl", [LINE])
    (tmp_path / "task" / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"b\.jsonl: a link to nothing"):
        Files(str(tmp_path / "task")).files()


def test_columns_are_part_of_the_fingerprint(write_jsonl):
    path = str(write_jsonl("t/a.jsonl", [{"q": "x", "answer": "y", "id": 1}]))
    source = Files(path, columns={"question": "q"})
    (sample,) = read(source)
    assert sample.messages == (Message("user", "x"), Message("assistant", "y"))
    assert sample.unread == {"id"}
    assert (
        source.fingerprint() != Files(path).fingerprint() != Files(path, columns={"query": "q"}).fingerprint()
    )
    assert Files(path, columns={}).fingerprint() == Files(path).fingerprint()
    assert {type(value) for value in source.fingerprint().values()} <= {str, int, type(None)}
    with pytest.raises(ConfigError, match="did you mean question"):
        Files(path, columns={"questions": "q"})


def test_columns_of_a_task_reach_its_sources(write_jsonl):
    path = str(write_jsonl("t/a.jsonl", [{"q": "x", "answer": "y"}]))
    task = TaskConfig(path=path, valid_path=path, columns={"question": "q"})
    config = SimpleNamespace(
        data=SimpleNamespace(tasks={"t": task}, paths=[], fallback={}, tokenized=None, shard_samples=None)
    )
    sources = task_sources(config)["t"]
    assert [len(list(read(source))) for source in (sources.train, sources.valid)] == [1, 1]
    assert [source.columns for source in (sources.train, sources.valid)] == [{"question": "q"}] * 2
    task = TaskConfig(dataset="x/y", valid_split="v", columns={"question": "q"})
    config.data.tasks["t"] = task
    sources = task_sources(config)["t"]
    assert [source.columns for source in (sources.train, sources.valid)] == [{"question": "q"}] * 2
    config.data.tasks["t"] = TaskConfig(source={"_target_": "x"}, columns={"question": "q"})
    with pytest.raises(ConfigError, match=r"data\.tasks\.t\.columns: does not act on data\.tasks\.t\.source"):
        task_sources(config)
