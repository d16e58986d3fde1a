import json
import logging
import os
import resource
import signal
import subprocess
import sys

import pytest

from mftrun.errors import ConfigError
from mftrun.tracking.base import RunInfo
from mftrun.tracking.jsonl import MetricsFile, read, truncate_after


def info(folder, resumed=None):
    return RunInfo(folder, "demo", None, None, {}, ["a"], 10, resumed)


def logged(folder, steps, resumed=None):
    metrics = MetricsFile()
    metrics.start(info(folder, resumed))
    for step in steps:
        metrics.log(step, {"train/loss": step / 2})
    metrics.finish(None, 0)
    return [record["step"] for record in read(folder / "metrics.jsonl")]


@pytest.fixture
def limited():
    """Keeps files from growing, as a full disk does: a write stops in the middle, then fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))

    yield limit
    limit(None)
    signal.signal(signal.SIGXFSZ, previous)


def test_a_line_is_complete_when_log_returns(tmp_path):
    metrics = MetricsFile()
    metrics.start(info(tmp_path))
    metrics.log(3, {"train/loss": 1.5, "epoch": 1})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert list(record) == ["step", "time", "train/loss", "epoch"]
    assert (record["step"], record["train/loss"], record["epoch"]) == (3, 1.5, 1)
    assert record["time"].endswith("+00:00")
    metrics.finish(None, 0)


def test_values_that_are_not_finite_stay_valid_json(tmp_path):
    metrics = MetricsFile()
    metrics.start(info(tmp_path))
    metrics.log(1, {"grad_norm": float("inf"), "train/loss": float("nan"), "lr": 0.1})
    line = (tmp_path / "metrics.jsonl").read_text()

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    record = json.loads(line, parse_constant=refuse)
    assert record["grad_norm"] is None
    assert record["train/loss"] is None
    assert record["lr"] == 0.1


def test_resume_drops_what_came_after_the_checkpoint(tmp_path):
    assert logged(tmp_path, [1, 2, 3, 4, 4]) == [1, 2, 3, 4, 4]
    assert logged(tmp_path, [3, 4, 5], resumed=2) == [1, 2, 3, 4, 5]
    assert logged(tmp_path, [6], resumed=5) == [1, 2, 3, 4, 5, 6]


def test_a_run_from_the_start_forgets_an_earlier_attempt(tmp_path):
    logged(tmp_path, [0, 1, 2])
    assert logged(tmp_path, [0, 1]) == [0, 1]


@pytest.mark.parametrize(
    "torn", [b'{"step": 3, "ti', b'{"step": 3, "time": "", "x": 1}', b"\xff\x00", b"17\n"]
)
def test_a_torn_last_line_is_read_around_and_repaired(tmp_path, torn):
    logged(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    with path.open("ab") as file:
        file.write(torn)
    complete = torn.endswith(b"}")
    assert [record["step"] for record in read(path)] == [1, 2] + [3] * complete
    assert logged(tmp_path, [4], resumed=3) == [1, 2] + [3] * complete + [4]
    assert path.read_bytes().endswith(b"\n")
    assert len(path.read_bytes().splitlines()) == len(read(path))


def test_truncating_rewrites_only_when_it_must(tmp_path):
    path = tmp_path / "metrics.jsonl"
    truncate_after(path, 3)
    assert not path.exists()
    path.write_text('{"step": 1}\nbroken\n{"step": 9}\n{"step": 2}\n')
    truncate_after(path, 3)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    before = path.stat()
    truncate_after(path, 3)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_full_disk_loses_nothing(tmp_path, limited, caplog):
    caplog.set_level(logging.INFO)
    metrics, path = MetricsFile(), tmp_path / "metrics.jsonl"
    metrics.start(info(tmp_path))
    metrics.log(1, {"train/loss": 1.0})
    limited(path.stat().st_size + 10)  # the next line is cut after ten bytes
    for step in (2, 3, 4):
        metrics.log(step, {"train/loss": float(step)})
    assert [record["step"] for record in metrics.records()] == [1, 2, 3, 4]
    assert [record["step"] for record in read(path)] == [1]
    limited(None)
    metrics.log(5, {"train/loss": 5.0})
    metrics.finish(None, 0)
    assert [(record["step"], record["train/loss"]) for record in read(path)] == [
        (n, float(n)) for n in range(1, 6)
    ]
    assert len(path.read_bytes().splitlines()) == 5
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


def test_a_disk_that_stays_full_is_told_at_the_end(tmp_path, limited, caplog):
    metrics = MetricsFile()
    metrics.start(info(tmp_path))
    limited(0)
    metrics.log(1, {})
    metrics.finish(None, 0)
    limited(None)
    assert "1 records did not reach" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_really_full_disk_at_the_start(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=8", "none", disk], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount")
    try:
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space left"), filler.open("wb") as file:
            file.write(b"0" * 200_000)
        metrics = MetricsFile()
        metrics.start(info(disk))
        metrics.log(1, {})
        metrics.log(2, {})
        assert [record["step"] for record in metrics.records()] == [1, 2]
        filler.unlink()
        metrics.log(3, {})
        metrics.finish(None, 0)
        assert [record["step"] for record in read(disk / "metrics.jsonl")] == [1, 2, 3]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_cannot_be_written_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"output_dir: cannot write .*metrics\.jsonl"):
        MetricsFile().start(info(tmp_path / "file"))


def test_kill_in_the_middle_leaves_every_logged_line(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mftrun.tracking.base import RunInfo; from mftrun.tracking.jsonl import MetricsFile\n"
        "m = MetricsFile(); m.start(RunInfo(Path(sys.argv[1]), 'n', None, None, {}, [], 9))\n"
        "for step in range(5): m.log(step, {'x': 1.0})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path])
    assert ended.returncode == -signal.SIGKILL
    assert logged(tmp_path, [3, 4, 5], resumed=2) == [0, 1, 2, 3, 4, 5]
