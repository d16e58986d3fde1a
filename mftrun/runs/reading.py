"""One run's folder, read without changing it: also unfinished, empty or broken, and while it is written."""

from __future__ import annotations

import datetime
import enum
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mftrun.lock import is_locked
from mftrun.paths import CONFIG_FILE, FAILURE
from mftrun.runs.records import Records, number
from mftrun.tracking.jsonl import METRICS_NAME
from mftrun.tracking.summary import SUMMARY_NAME

LOG_NAME = "mftrun.log"
CHECKPOINTS = "checkpoints"

_TRAIN = "TrainJob"
_LOG_TAIL = 65536
_OF_TOTAL = re.compile(rb"\bstep +\d+/(\d+) (?:train|valid)\b")


class State(enum.StrEnum):
    """What became of a run."""

    NOT_STARTED = "not started"
    WAITING = "waiting"
    """Slurm has it in its queue; a folder alone does not tell."""
    RUNNING = "running"
    STOPPED = "stopped"
    """Cut short, by a signal or a kill; it can go on where it has a checkpoint."""
    FAILED = "failed"
    PRUNED = "pruned"
    """Ended early on purpose, as a sweep had better ones; counts as finished."""
    FINISHED = "finished"

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self in (State.FINISHED, State.PRUNED)


@dataclass(frozen=True)
class Failure:
    """Why a run failed.

    Attributes:
        message: What the user was told.
        time: When, ISO 8601; None where that was not recorded.
        detail: Last line of the traceback; None for an error that needs none.
    """

    message: str
    time: str | None = None
    detail: str | None = None

    @staticmethod
    def read(path: Path) -> Failure | None:
        """That of a file; None where there is none. A file that cannot be read is a failure all the same."""
        if not is_file(path):
            return None
        content = _json(path)
        if not isinstance(content, Mapping):
            return Failure(f"{path.name} cannot be read")
        detail, time = content.get("traceback"), content.get("time")
        message = content.get("message") or detail or "for no recorded reason"
        return Failure(str(message), None if time is None else str(time), None if not detail else str(detail))


class RunFolder:
    """What is known of the run in a folder. Everything is read once, when it is first asked for.

    Args:
        path: The folder; it need not hold a run, nor exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, path: Path) -> RunFolder:
        """The run in a folder; never raises, whatever is there."""
        return cls(path.absolute())

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @cached_property
    def config(self) -> Mapping[str, Any] | None:
        """The resolved configuration; None where it is missing or broken."""
        loaded = _yaml(self.path / CONFIG_FILE)
        return loaded if isinstance(loaded, Mapping) else None

    @cached_property
    def hydra(self) -> Mapping[str, Any]:
        """Hydra's own record of the job (choices, number, id); empty where there is none."""
        loaded = _yaml(self.path / ".hydra" / "hydra.yaml")
        inner = loaded.get("hydra") if isinstance(loaded, Mapping) else None
        return inner if isinstance(inner, Mapping) else {}

    @cached_property
    def overrides(self) -> list[str]:
        """The task overrides that the job was started with."""
        loaded = _yaml(self.path / ".hydra" / "overrides.yaml")
        return [str(one) for one in loaded] if isinstance(loaded, list) else []

    @cached_property
    def summary(self) -> Mapping[str, Any] | None:
        """What summary.json holds; None for a run that has not finished."""
        content = _json(self.path / SUMMARY_NAME)
        return content if isinstance(content, Mapping) else None

    @cached_property
    def failure(self) -> Failure | None:
        """Why its last attempt failed, if it did."""
        return Failure.read(self.path / FAILURE)

    @cached_property
    def records(self) -> Records:
        """All of its metrics."""
        return Records.all_of(self.path / METRICS_NAME)

    @cached_property
    def latest(self) -> Records:
        """The newest of its metrics, cheap to have from a long file."""
        return Records.end_of(self.path / METRICS_NAME)

    @cached_property
    def state(self) -> State:
        """What became of it, as far as the folder tells."""
        if self.summary is not None:
            return State.FINISHED if self.summary.get("pruned") in (None, False) else State.PRUNED
        if is_locked(self.path):
            return State.RUNNING
        if self.failure is not None:
            return State.FAILED
        return State.STOPPED if self._has_begun() else State.NOT_STARTED

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do for it."""
        return self.state.is_finished

    @property
    def is_training(self) -> bool:
        """Whether a training run was started here; the folder of another job says so in its config."""
        job = (self.config or {}).get("job")
        target = job.get("_target_") if isinstance(job, Mapping) else None
        return target is None or str(target).endswith(_TRAIN)

    @cached_property
    def step(self) -> int:
        """Optimizer steps done, as far as they were recorded."""
        done = whole((self.summary or {}).get("steps"))
        return done if done is not None else self.latest.step

    @cached_property
    def total_steps(self) -> int | None:
        """Optimizer steps of the whole run; None where nothing tells yet."""
        if self.is_finished:
            return self.step
        return _total_in_log(self.path / LOG_NAME) or self._total_by_config()

    @cached_property
    def tasks(self) -> list[str]:
        """Names of the tasks that there are results of, in their order."""
        tasks = (self.summary or {}).get("tasks")
        return [str(task) for task in tasks] if isinstance(tasks, Mapping) else self.records.tasks

    @cached_property
    def faults(self) -> list[str]:
        """Files that are there and cannot be read."""
        found = ((CONFIG_FILE, self.config), (SUMMARY_NAME, self.summary))
        broken = [name for name, content in found if content is None and is_file(self.path / name)]
        metrics = self.path / METRICS_NAME
        if is_file(metrics) and not self.latest.rows and metrics.stat().st_size > 0:
            broken.append(METRICS_NAME)
        if not os.access(self.path, os.R_OK | os.X_OK) and self.path.is_dir():
            broken.append("the folder")
        return [f"{name} cannot be read" for name in broken]

    @property
    def seconds(self) -> float | None:
        """Wall-clock seconds of training; of an unfinished run from its first record to its newest."""
        told = number((self.summary or {}).get("seconds"))
        return told if told is not None else self.records.seconds

    def eta(self, now: datetime.datetime) -> float | None:
        """Seconds to the end at the pace of the newest records; None for one that is not running.

        Args:
            now: The time, with its zone.
        """
        pace, last = self.latest.pace, self.latest.time
        if self.state is not State.RUNNING or self.total_steps is None or pace is None or last is None:
            return None
        return max(0.0, pace * (self.total_steps - self.step) - (now - last).total_seconds())

    def _has_begun(self) -> bool:
        return bool(self.latest.rows) or any((self.path / CHECKPOINTS).glob("step-*"))

    def _total_by_config(self) -> int | None:
        train = (self.config or {}).get("train")
        if not isinstance(train, Mapping):
            return None
        limit, epochs, done = whole(train.get("max_steps")), number(train.get("epochs")), self.latest.epoch
        if epochs is None or not done:
            return limit if epochs is None else None
        by_epochs = round(self.latest.step * epochs / done)
        return by_epochs if limit is None else min(limit, by_epochs)


def is_file(path: Path) -> bool:
    """Whether there is such a file; not one in a folder that may not be looked into."""
    return os.path.isfile(path)  # noqa: PTH113 (Path's own raises there)


def whole(value: Any) -> int | None:
    """A whole number, or None for anything else that a file may hold."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _total_in_log(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL))
            found = _OF_TOTAL.findall(file.read())
    except OSError:
        return None
    return int(found[-1]) if found else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _yaml(path: Path) -> Any:
    import yaml

    try:
        loaded = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        json.dumps(loaded, default=str, skipkeys=True)  # what holds itself has no end
    except Exception:  # a tag on what is none of its kind raises whatever it comes to
        return None
    return loaded
