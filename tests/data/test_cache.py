from __future__ import annotations

import fcntl
import logging
import threading
from pathlib import Path

import pytest

from mftrun.data.cache import TokenCache
from mftrun.data.digests import digest
from mftrun.errors import DataError

KEY = {"tokenizer": "a", "source": {"file": "10 bytes"}}


class Maker:
    """Makes a folder with one file, and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, folder: Path) -> None:
        self.made += 1
        folder.mkdir()
        (folder / "file").write_text("content")


def test_made_once_and_found_again(tmp_path: Path) -> None:
    cache, make = TokenCache(tmp_path / "cache"), Maker()

    assert cache.find(KEY) is None
    first = cache.get_or_make(KEY, make)
    again = TokenCache(tmp_path / "cache").get_or_make(dict(reversed(KEY.items())), make)

    assert first == again == cache.find(KEY)
    assert (first / "file").read_text() == "content"
    assert make.made == 1


def test_another_key_is_another_entry(tmp_path: Path) -> None:
    cache, make = TokenCache(tmp_path), Maker()

    folders = {cache.get_or_make({**KEY, "tokenizer": name}, make) for name in "ab"}

    assert len(folders) == make.made == 2


def test_the_key_lies_beside_for_people(tmp_path: Path) -> None:
    folder = TokenCache(tmp_path).get_or_make(KEY, Maker())

    assert '"tokenizer": "a"' in (folder.parent / "key.json").read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError("a.jsonl", 1, "bad"), OSError(2, "gone")])
def test_nothing_is_kept_of_what_failed(tmp_path: Path, error: type[BaseException] | BaseException) -> None:
    def fail(folder: Path) -> None:
        Maker()(folder)
        raise error

    cache = TokenCache(tmp_path)
    with pytest.raises(type(error) if isinstance(error, BaseException) else error):
        cache.get_or_make(KEY, fail)

    assert cache.find(KEY) is None
    assert not list(tmp_path.glob(".partial-*"))


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for name in (digest(KEY)[:32], "0" * 32):
        (tmp_path / f".partial-{name}" / "content").mkdir(parents=True)
        (tmp_path / f".partial-{name}" / "content" / "half").write_text("")

    folder = TokenCache(tmp_path).get_or_make(KEY, Maker())

    assert [path.name for path in folder.iterdir()] == ["file"]
    assert not list(tmp_path.glob(".partial-*"))


def test_what_another_process_is_making_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / f".partial-{'0' * 32}"
    other.mkdir()
    (tmp_path / "locks").mkdir()
    with (tmp_path / "locks" / ("0" * 32)).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        TokenCache(tmp_path).get_or_make(KEY, Maker())

    assert other.exists()


def test_who_comes_second_waits_and_takes_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    is_making, may_end = threading.Event(), threading.Event()
    make = Maker()

    def slowly(folder: Path) -> None:
        is_making.set()
        assert may_end.wait(60)
        make(folder)

    class Ends(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waiting for" in record.getMessage():
                may_end.set()

    first = threading.Thread(target=lambda: TokenCache(tmp_path).get_or_make(KEY, slowly))
    first.start()
    assert is_making.wait(60)
    logger, handler = logging.getLogger("mftrun.data.cache"), Ends()
    logger.addHandler(handler)
    try:
        TokenCache(tmp_path).get_or_make(KEY, make)
    finally:
        logger.removeHandler(handler)
    first.join()

    assert make.made == 1
    assert "waiting for process " in caplog.text


def test_a_folder_that_cannot_be_written_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DataError, match=r"tokens cannot be kept here .*data\.cache_dir"):
        TokenCache(tmp_path / "file").get_or_make(KEY, Maker())


def test_a_full_disk_names_the_key(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"No space left on device.*data\.cache_dir"):
        TokenCache(tmp_path).get_or_make(KEY, fill)
