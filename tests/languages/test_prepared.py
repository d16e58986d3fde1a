"""What is made once for all programs."""

import os

import pytest

from mftrun.errors import MftrunError
from mftrun.languages.prepared import asked, prepared


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MFTRUN_CACHE", str(tmp_path))
    return tmp_path / "languages"


def test_a_folder_is_made_once_for_each_key():
    made = []

    def make(folder):
        (folder / "file").write_text("text")
        made.append(folder)

    first = prepared("kit", ["1"], make)
    assert prepared("kit", ["1"], make) == first != prepared("kit", ["2"], make)
    assert len(made) == 2
    assert (first / "file").read_text() == "text"


def test_what_fails_leaves_nothing_behind(cache):
    def make(folder):
        (folder / "file").touch()
        raise MftrunError("no")

    with pytest.raises(MftrunError, match="no"):
        prepared("kit", ["1"], make)
    assert list(cache.iterdir()) == []


def test_a_folder_made_by_somebody_else_meanwhile_stays(cache):
    def make(folder):
        (folder / "file").write_text("second")
        name = prepared("kit", ["1"], lambda other: (other / "file").write_text("first")).name
        assert (cache / name).is_dir()

    assert (prepared("kit", ["1"], make) / "file").read_text() == "first"
    assert len(list(cache.iterdir())) == 1


def test_everybody_may_read_it():
    before = os.umask(0o077)
    try:
        folder = prepared("kit", ["1"], lambda new: (new / "file").touch())
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "file").stat().st_mode & 0o777 == 0o644


def test_a_tool_that_fails_is_named_with_its_words():
    with pytest.raises(MftrunError, match=r"(?s)sh -c .* failed:.*broken"):
        asked(["sh", "-c", "echo broken >&2; exit 1"])
