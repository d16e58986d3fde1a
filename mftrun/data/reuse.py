"""Stores that were made from the same things are kept; a resumed run keeps its own in any case."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mftrun.data.report import DataReport
from mftrun.data.store import TokenStore
from mftrun.data.writing import REPORT, TRAIN_STORE, VALID_STORE
from mftrun.errors import DataError

_ABSENT = "absent"

_log = logging.getLogger(__name__)


def digest(value: Any) -> str:
    """SHA-256 of plain values, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def kept(directory: Path, origin: Mapping[str, Any]) -> DataReport | None:
    """The report of an earlier start, if it is complete and was made from the same things.

    Args:
        directory: The data folder of the run.
        origin: What the stores would be made from now, as JSON gives it back.
    """
    stored = _stored(directory / REPORT)
    if stored is None:
        return None
    changes = _differences(stored["origin"], origin)
    if changes:
        _log.info("making the data of %s again, as it was made from other things:\n%s", directory, changes)
        return None
    return _whole(directory, stored, resume=False)


def kept_on_resume(directory: Path, origin: Callable[[], Mapping[str, Any]]) -> DataReport | None:
    """The report of the data that the resumed run was started with, whatever became of its sources.

    What has changed since, or is gone, is named in a warning: the run goes on with what it has.

    Args:
        directory: The data folder of the run.
        origin: Gives what the stores would be made from now; may raise `DataError`.

    Raises:
        DataError: The stores are damaged.
    """
    stored = _stored(directory / REPORT)
    if stored is None:
        return None
    try:
        changes = _differences(stored["origin"], origin())
    except DataError as error:
        changes = f"  {error}"
    if changes:
        _log.warning("going on with the data of %s; since it was made has changed:\n%s", directory, changes)
    return _whole(directory, stored, resume=True)


def _whole(directory: Path, stored: Mapping[str, Any], resume: bool) -> DataReport | None:
    report = DataReport.from_dict({**stored["report"], "reused": True})
    return report if _is_whole(directory, report, resume) else None


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored


def _is_whole(directory: Path, report: DataReport, resume: bool) -> bool:
    try:
        stores = [TokenStore.open(directory / name) for name in (TRAIN_STORE, VALID_STORE)]
    except DataError as error:
        if resume:
            raise
        _log.info("making the data again: %s", error)
        return False
    # A start that was killed before its report was written leaves new stores beside the old report.
    return all(store.fingerprint == report.fingerprint for store in stores)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = [key for key in {**before, **after} if before.get(key, _ABSENT) != after.get(key, _ABSENT)]
    return "\n".join(f"  {key}: {before.get(key, _ABSENT)} → {after.get(key, _ABSENT)}" for key in keys)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
