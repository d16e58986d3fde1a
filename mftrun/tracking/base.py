"""What a tracker is, and several of them as one."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mftrun.errors import MftrunError
from mftrun.tracking.summary import Summary

_log = logging.getLogger(__name__)

_NUMBER = re.compile(r"^\d+_?")
_SEED = re.compile(r"(?:^|(?<=_))seed=[^_]*(?:_|$)")


@dataclass(frozen=True)
class RunInfo:
    """What a tracker may know about the run.

    Attributes:
        run_dir: The run's directory; trackers write inside it only.
        name: The user's name of the run.
        group: Name of the sweep this run is part of, if it is.
        job_id: What tells this run from the others of its sweep: its override directory or job number.
        config: The resolved configuration, plain containers only.
        tasks: Task names, in the order of the configuration.
        total_steps: Optimizer steps of the whole run, including those before a resume.
        resumed_step: The step of the checkpoint the run goes on from; None for a run from the start.
    """

    run_dir: Path
    name: str
    group: str | None
    job_id: str | None
    config: Mapping[str, Any]
    tasks: Sequence[str]
    total_steps: int
    resumed_step: int | None = None

    @property
    def label(self) -> str:
        """The run's name within its sweep, at most 128 characters: `name` or `name-job_id`."""
        return fit_label(self.name if self.job_id is None else f"{self.name}-{self.job_id}")

    @property
    def variant(self) -> str | None:
        """What was swept, without the job's number and its seed, so that seeds of one setting share it."""
        if self.job_id is None:
            return None
        return _SEED.sub("", _NUMBER.sub("", self.job_id)).strip("_") or None


@runtime_checkable
class Tracker(Protocol):
    """A place that metrics go to. Only rank 0 has trackers."""

    def check(self) -> None:
        """Refuses early what cannot work; cheap, called before data and model are read.

        Raises:
            ConfigError: A key that the user must change.
        """

    def start(self, run: RunInfo) -> None:
        """Opens the tracker for a run, or goes on with it when `run.resumed_step` is set.

        Raises:
            ConfigError: A key that the user must change.
        """

    def log(self, step: int, record: Mapping[str, float]) -> None:
        """Takes the metrics of one optimizer step; an absent task has no key. May be called twice a step."""

    def finish(self, summary: Summary | None, exit_code: int) -> None:
        """Closes the tracker.

        Args:
            summary: The run's results; None when it did not reach its end.
            exit_code: 0 for a run that ended as planned.
        """


class Trackers:
    """Several trackers as one.

    A tracker that fails is reported once, by its name, and takes no further part; training goes on. Only
    errors of the user (`ConfigError`) raised before the first step stop the run.

    Args:
        trackers: Name to tracker; None leaves one out. Ranks other than 0 pass an empty mapping.
    """

    def __init__(self, trackers: Mapping[str, Tracker | None]) -> None:
        self._active = {name: tracker for name, tracker in trackers.items() if tracker is not None}
        self._started: dict[str, Tracker] = {}

    @property
    def names(self) -> list[str]:
        """Names of the trackers that still take part."""
        return list(self._active)

    def check(self) -> None:
        """Lets every tracker refuse early what cannot work.

        Raises:
            ConfigError: A key that the user must change.
        """
        for tracker in self._active.values():
            tracker.check()

    def start(self, run: RunInfo) -> None:
        """Starts every tracker; when one raises an error of the user, those already started are closed again.

        Raises:
            ConfigError: A key that the user must change.
        """
        try:
            for name, tracker in list(self._active.items()):
                self._started[name] = tracker
                self._guard(name, "start", partial(tracker.start, run), fatal=(MftrunError,))
        except BaseException:
            self.finish(None, exit_code=1)
            raise

    def log(self, step: int, record: Mapping[str, float]) -> None:
        """Hands one record to every tracker."""
        for name, tracker in list(self._active.items()):
            self._guard(name, "log", partial(tracker.log, step, record))

    def finish(self, summary: Summary | None = None, exit_code: int = 0) -> None:
        """Closes every tracker that was started, also a failed one, once; raises nothing of theirs."""
        started, self._started = self._started, {}
        for name, tracker in reversed(started.items()):  # the console, first, has the last word
            try:
                tracker.finish(summary, exit_code)
            except Exception as error:
                if name in self._active:  # the others were reported when they failed
                    _log.warning("tracker %s failed to finish: %s", name, _describe(error))
        self._active = {}

    def _guard(
        self, name: str, action: str, call: Callable[[], None], fatal: tuple[type[Exception], ...] = ()
    ) -> None:
        try:
            call()
        except fatal:
            raise
        except Exception as error:
            del self._active[name]
            _log.warning(
                "tracker %s failed to %s and takes no further part; training goes on: %s",
                name,
                action,
                _describe(error),
                exc_info=_log.isEnabledFor(logging.DEBUG),
            )


def fit_label(text: str, limit: int = 128) -> str:
    """`text`, or its beginning and a hash of the whole when longer than `limit` characters (W&B's limit)."""
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[: limit - 9]}~{digest}"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
