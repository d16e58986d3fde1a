"""The attempts of a run: from where it was told to begin, and after a crash from its newest checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mftrun.jobs.run_data import RunData
from mftrun.jobs.train import Payload
from mftrun.training.checkpoint import MANIFEST, Checkpoints

log = logging.getLogger(__name__)


class Attempts:
    """What the ranks are given, each time that they are started.

    Args:
        config: The resolved configuration.
        run_dir: The run's folder.
        data: The run's data, prepared for the first attempt.
        checkpoint: Where the first attempt begins; None from the start.
    """

    def __init__(
        self, config: Mapping[str, Any], run_dir: Path, data: RunData, checkpoint: Path | None
    ) -> None:
        self._config = config
        self._run_dir = run_dir
        self._data = data
        self._first = checkpoint
        self._has_begun = False
        self._older = self._own()

    @contextmanager
    def next(self) -> Iterator[Payload]:
        """The payload of the next attempt; inside, the ranks get their data."""
        checkpoint = self._again() if self._has_begun else self._first
        self._has_begun = True
        with self._data.supplied(checkpoint):
            yield Payload(self._config, self._run_dir, checkpoint)

    def _again(self) -> Path | None:
        """As `resume=auto` would: what a stream has made since may not be there any more."""
        checkpoint = self._newest()
        log.warning("going on from %s", "the beginning" if checkpoint is None else checkpoint.name)
        self._data.prepare(checkpoint)
        return checkpoint

    def _newest(self) -> Path | None:
        # What lay there before may be later than the place where the run was told to begin.
        made = [path for path, time in self._own().items() if self._older.get(path) != time]
        return made[-1] if made else self._first

    def _own(self) -> dict[Path, int]:
        """Whole checkpoints, oldest first, and when they were made."""
        found = Checkpoints(self._run_dir).complete()
        return {path: (path / MANIFEST).stat().st_mtime_ns for path in found}
