"""metrics.jsonl: every record of a run, one line each, whatever happens to the process or the disk."""

from __future__ import annotations

import datetime
import errno
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mftrun.errors import ConfigError
from mftrun.files import write_atomically
from mftrun.tracking.base import RunInfo
from mftrun.tracking.summary import Summary

_log = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class MetricsFile:
    """The tracker that is always there: `RUN/metrics.jsonl`, one line a record.

    A line is `{"step": int, "time": ISO 8601 in UTC, **record}`; a value that is not finite is null. It is
    in the file when `log` returns. While the disk is full, lines wait in memory, and go to the file, in
    order, with the first record that finds space.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._descriptor: int | None = None
        self._size = 0
        self._waiting: list[bytes] = []
        self._warned = False

    def check(self) -> None:
        """Nothing to refuse."""

    def start(self, run: RunInfo) -> None:
        """Opens the file; on resume forgets what came after the checkpoint, else starts empty.

        Raises:
            ConfigError: The run directory cannot be written.
        """
        self._path = run.run_dir / METRICS_NAME
        try:
            run.run_dir.mkdir(parents=True, exist_ok=True)
            truncate_after(self._path, -1 if run.resumed_step is None else run.resumed_step)
            self._open()
        except OSError as error:
            if error.errno not in _FULL_DISK:
                raise ConfigError("output_dir", f"cannot write {self._path}: {error.strerror}") from error
            self._warn(error)

    def log(self, step: int, record: Mapping[str, float]) -> None:
        """Appends one record."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = {"step": step, "time": now, **{key: _plain(value) for key, value in record.items()}}
        self._waiting.append(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._write_waiting()

    def finish(self, summary: Summary | None, exit_code: int) -> None:
        """Writes what still waits and closes the file."""
        self._write_waiting()
        if self._waiting:
            _log.warning("%d records did not reach %s: the disk is full", len(self._waiting), self._path)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def records(self) -> list[dict[str, Any]]:
        """All records of the run so far, those that wait for disk space included."""
        written = read(self._path) if self._path is not None and self._path.exists() else []
        return written + [json.loads(line) for line in self._waiting]

    def _open(self) -> int:
        assert self._path is not None, "start() comes first"
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._size = os.fstat(self._descriptor).st_size
        return self._descriptor

    def _write_waiting(self) -> None:
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        try:
            self._append(self._open(), data)
        except OSError as error:
            self._warn(error)
            return
        self._size += len(data)
        self._waiting.clear()
        self._note_recovery()

    def _append(self, descriptor: int, data: bytes) -> None:
        # An earlier attempt may have left a part of its first line behind.
        if os.fstat(descriptor).st_size != self._size:
            os.ftruncate(descriptor, self._size)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            _log.warning(
                "cannot write %s (%s): records are kept in memory and written later; training goes on",
                self._path,
                error.strerror or error,
            )
        self._warned = True

    def _note_recovery(self) -> None:
        if self._warned:
            _log.info("%s can be written again; it holds every record", self._path)
        self._warned = False


def read(path: Path) -> list[dict[str, Any]]:
    """Records of a metrics file, in file order; a line torn by a kill in the middle of a write is left out.

    Args:
        path: A metrics.jsonl.

    Returns:
        Mappings with `step`, `time` and metrics; a value that was not finite is None.

    Raises:
        OSError: The file cannot be read.
    """
    return [record for _, record in _parsed(path.read_bytes()) if record is not None]


def read_end(path: Path, size: int = 2**20) -> list[dict[str, Any]]:
    """The records in the last `size` bytes of a metrics file, in file order; see :func:`read`.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        start = max(0, os.fstat(file.fileno()).st_size - size)
        file.seek(start)
        lines = file.read().splitlines()
    whole = lines[1:] if start else lines  # the first may have been cut
    return [record for line in whole if (record := _parse(line)) is not None]


def truncate_after(path: Path, step: int) -> None:
    """Drops the records of later steps than `step`, and what is left of a torn line, in one atomic change.

    Args:
        path: A metrics.jsonl; nothing happens when absent.
        step: The last step to keep.

    Raises:
        OSError: The file cannot be changed; it is as it was.
    """
    if not path.exists():
        return
    data = path.read_bytes()
    kept = b"".join(
        line.rstrip(b"\n") + b"\n"
        for line, record in _parsed(data)
        if record is not None and record["step"] <= step
    )
    if kept == data:
        return
    if data.startswith(kept):
        os.truncate(path, len(kept))  # atomic too, and needs no disk space
    else:
        write_atomically(path, kept)


def _parsed(data: bytes) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    for line in data.splitlines(keepends=True):
        yield line, _parse(line)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _plain(value: float) -> float | None:
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else None
