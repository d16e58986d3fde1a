"""``metrics.json``: scores of all benchmarks, and what they were measured with."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mftrun.errors import ConfigError
from mftrun.files import write_json
from mftrun.scoring.score import Score, Skipped
from mftrun.solving.earlier import set_aside

log = logging.getLogger(__name__)

METRICS = "metrics.json"
_AVERAGE, _CONFIG, _VERSION = "average", "config", "version"


def competition_average(values: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]) -> float | None:
    """Mean pass@1 of the competition's benchmarks.

    Args:
        values: Of each benchmark those of `Score.values` or `Skipped.values`.
        tasks: Names of the competition's benchmarks.

    Returns:
        The mean; None unless all of them are there, and whole.
    """
    found = [_whole_pass_at_1(values[task]) for task in tasks if task in values]
    numbers = [value for value in found if value is not None]
    return sum(numbers) / len(tasks) if numbers and len(numbers) == len(tasks) else None


def read_metrics(folder: Path) -> dict[str, Any]:
    """What the file of a folder holds; nothing where there is none.

    Raises:
        ConfigError: It is somebody else's, or cannot be read.
    """
    path = folder / METRICS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError("output", f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not _is_ours(found):
        raise ConfigError("output", f"{path} holds no scores; name another folder, or remove the file")
    return found


def write_metrics(
    folder: Path, scores: Iterable[Score | Skipped], tasks: Sequence[str], config: Mapping[str, Any]
) -> float | None:
    """Writes the file, in one step, with what it holds of other benchmarks.

    A score of more problems or samples stays. Where it was measured with other settings, the file that is
    there is kept beside it; see `set_aside`.

    Args:
        folder: Where to.
        scores: One of each benchmark.
        tasks: Names of the competition's benchmarks.
        config: Plain values: what they were measured with.

    Returns:
        The mean of `competition_average`.

    Raises:
        ConfigError: It cannot be written.
    """
    path, now = folder / METRICS, json.loads(json.dumps(dict(config)))
    before = read_metrics(folder)
    if before and not _is_alike(before[_CONFIG], now):
        set_aside(path, folder, "holds scores of another model or of other settings")
        before = {}
    values = {task: before[task] for task in _tasks(before)}
    for one in scores:
        values[one.extent.task] = _better(path, one, values.get(one.extent.task, {}))
    average = competition_average(values, tasks)
    merged = {**before.get(_CONFIG, {}), **now}
    try:
        write_json(path, {**values, _AVERAGE: average, _CONFIG: merged})
    except OSError as error:
        raise ConfigError("output", f"cannot write {path}: {error.strerror}") from error
    return average


def _tasks(found: Mapping[str, Any]) -> list[str]:
    return [name for name in found if name != _AVERAGE and name != _CONFIG]


def _is_ours(found: Mapping[str, Any]) -> bool:
    parts = [found.get(name) for name in (_CONFIG, *_tasks(found))]
    return all(isinstance(part, dict) for part in parts)


def _is_alike(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether what both say is the same; who only scores knows less than who generates."""
    return all(before[key] == now[key] for key in before.keys() & now.keys() - {_VERSION})


def _better(path: Path, one: Score | Skipped, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a score, or those that are there where they are of more."""
    now = one.values()
    if before.get("pass@1") is None or _extent(before) <= _extent(now):
        return now
    problems, samples = _extent(before)
    of = f"{problems} problems with {samples} samples each"
    log.warning("%s keeps the score of %s that is there: it is of %s", path, one.extent.task, of)
    return before


def _extent(values: Mapping[str, Any]) -> tuple[int, int]:
    return (values.get("problems", 0), values["samples"]) if "samples" in values else (0, 0)


def _whole_pass_at_1(values: Mapping[str, Any]) -> float | None:
    is_whole = values.get("problems") == values.get("of")
    return values.get("pass@1") if is_whole else None
