from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import subprocess
import sys

import numpy as np
import pytest

from mftrun.data.sample import Origin
from mftrun.data.store import Entry, TokenStore
from mftrun.errors import DataError


def entry(length, task=0, path="a.jsonl", line=1, targets=None):
    flags = np.ones(length, dtype=bool) if targets is None else np.array(targets, dtype=bool)
    return Entry(np.arange(length, dtype=np.int32) + 10, flags, task, Origin(path, line))


def test_what_is_written_is_read(tmp_path):
    entries = [entry(3, 0, "a", 4), entry(1, 1, "b", 2), entry(5, 1, "a", 9, [1, 0, 1, 1, 0])]
    written = TokenStore.write(tmp_path / "x" / "s", entries, ["t", "u"], "abc")
    store = TokenStore.open(tmp_path / "x" / "s")
    assert (store.tasks, store.fingerprint, store.num_samples) == (["t", "u"], "abc", 3)
    assert store.tokens.tolist() == [10, 11, 12, 10, 10, 11, 12, 13, 14]
    assert store.targets.tolist() == [False, True, True, False, False, False, True, True, False]
    assert store.offsets.tolist() == [0, 3, 4, 9]
    assert store.lengths.tolist() == [3, 1, 5]
    assert store.target_counts.tolist() == [2, 0, 2]
    assert store.task.tolist() == [0, 1, 1]
    assert [store.origin(sample) for sample in range(3)] == [Origin("a", 4), Origin("b", 2), Origin("a", 9)]
    assert np.array_equal(written.tokens, store.tokens)


def test_dtypes_and_mapping(tmp_path):
    store = TokenStore.write(tmp_path / "s", [entry(70_000)], ["t"])
    dtypes = {name: getattr(store, name).dtype.name for name in ("tokens", "targets", "offsets", "task")}
    assert dtypes == {"tokens": "int32", "targets": "bool", "offsets": "int64", "task": "int32"}
    assert (store.target_counts.dtype, store.lengths.dtype) == (np.int64, np.int64)
    assert isinstance(store.tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.tokens[0] = 1


def test_store_without_samples(tmp_path):
    store = TokenStore.write(tmp_path / "s", [], ["t"])
    assert (store.num_samples, len(store.tokens), store.lengths.tolist()) == (0, 0, [])


def test_a_failure_leaves_the_old_store_and_no_scraps(tmp_path):
    TokenStore.write(tmp_path / "s", [entry(3)], ["t"], "old")

    def broken():
        yield entry(4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TokenStore.write(tmp_path / "s", broken(), ["t"], "new")
    assert TokenStore.open(tmp_path / "s").fingerprint == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_writing_replaces_an_older_store(tmp_path):
    TokenStore.write(tmp_path / "s", [entry(3)], ["t"], "old")
    assert TokenStore.write(tmp_path / "s", [entry(4)], ["t"], "new").fingerprint == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("name", ["tokens", "targets", "offsets", "target_counts", "task", "origin_line"])
def test_a_store_cut_short_is_refused(tmp_path, name):
    TokenStore.write(tmp_path / "s", [entry(300), entry(2)], ["t"])
    file = tmp_path / "s" / f"{name}.npy"
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(
        DataError, match=rf"{name}.npy: cut short: \d+ of \d+ bytes; delete .* prepare the data"
    ):
        TokenStore.open(tmp_path / "s")
    file.unlink()
    with pytest.raises(DataError, match="cut short: 0 of"):
        TokenStore.open(tmp_path / "s")


@pytest.mark.parametrize("text", [None, "", "{", '{"version": 99}'])
def test_a_folder_without_a_readable_meta_is_refused(tmp_path, text):
    TokenStore.write(tmp_path / "s", [entry(3)], ["t"])
    (tmp_path / "s" / "meta.json").unlink()
    if text is not None:
        (tmp_path / "s" / "meta.json").write_text(text)
    with pytest.raises(DataError, match="prepare the data again"):
        TokenStore.open(tmp_path / "s")


def test_meta_is_plain_json(tmp_path):
    TokenStore.write(tmp_path / "s", [entry(3)], ["t"])
    assert json.loads((tmp_path / "s" / "meta.json").read_text())["tasks"] == ["t"]


def test_a_store_travels_to_another_process(tmp_path):
    store = TokenStore.write(tmp_path / "s", [entry(3)], ["t"])
    assert pickle.loads(pickle.dumps(store)).tokens.tolist() == store.tokens.tolist()


def test_mistakes_of_ours_are_caught(tmp_path):
    for wrong in (entry(0), entry(2, task=1), entry(2, targets=[1])):
        with pytest.raises(AssertionError):
            TokenStore.write(tmp_path / "s", [wrong], ["t"])
    assert not (tmp_path / "s").exists()


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the token store: .*output_dir"):
        TokenStore.write(tmp_path / "file" / "s", [entry(3)], ["t"])


_FILL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from mftrun.data.sample import Origin
from mftrun.data.store import Entry, TokenStore
from mftrun.errors import DataError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
big = Entry(np.zeros(60_000, np.int32), np.ones(60_000, bool), 0, Origin("a", 1))
try:
    TokenStore.write(Path(sys.argv[1]), [big], ["t"], "new")
except DataError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_store(tmp_path):
    TokenStore.write(tmp_path / "s", [entry(3)], ["t"], "old")
    command = [sys.executable, "-c", _FILL, str(tmp_path / "s")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "cannot write the token store" in shown
    assert TokenStore.open(tmp_path / "s").fingerprint == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_full_disk_at_the_last_step_leaves_the_old_store(tmp_path, monkeypatch):
    TokenStore.write(tmp_path / "s", [entry(3)], ["t"], "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match="No space left on device; free some space"):
        TokenStore.write(tmp_path / "s", [entry(3)], ["t"], "new")
    assert TokenStore.open(tmp_path / "s").fingerprint == "old"


def test_memory_does_not_grow_with_the_tokens(tmp_path):
    many = entry(500_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = TokenStore.write(tmp_path / "s", (many for _ in range(60)), ["t"])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(store.tokens) == 30_000_000
    assert grown < 70_000, "kibibytes; the arrays have 146,000"
