import pytest

from mftrun.files import remove_partial, whole_folder, write_atomically, write_json


def test_a_folder_appears_whole(tmp_path):
    with whole_folder(tmp_path / "out") as scratch:
        (scratch / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_keeps_the_old_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")

    def fail():
        with whole_folder(tmp_path / "out") as scratch:
            (scratch / "a").write_text("new")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_new_folder_replaces_the_old(tmp_path):
    for text in ("old", "new"):
        with whole_folder(tmp_path / "out") as scratch:
            (scratch / text).write_text(text)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]


def test_text_is_replaced_in_one_step(tmp_path):
    write_atomically(tmp_path / "x", "old")
    write_json(tmp_path / "x", {"a": 1})
    assert (tmp_path / "x").read_text() == '{\n  "a": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x", float("nan"))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_leftovers_are_removed(tmp_path):
    (tmp_path / ".partial-a").mkdir()
    (tmp_path / ".partial-b").write_text("x")
    (tmp_path / "c").write_text("x")
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    (tmp_path / ".replaced-out").mkdir()
    (tmp_path / ".replaced-out" / "a").write_text("old")

    def fail():
        with whole_folder(tmp_path / "out"):
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
