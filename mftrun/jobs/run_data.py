"""The data of a run: made once before it starts, or shard by shard while it goes on."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mftrun.data.epochs import Epochs, SameSamples
from mftrun.data.plan import Planner
from mftrun.data.prepare import open_tables
from mftrun.data.selection import VALID_TABLE
from mftrun.data.table import SampleTable
from mftrun.jobs.layout import RunLayout
from mftrun.jobs.preparation import build_planner, prepare_tables
from mftrun.schema import RunConfig

if TYPE_CHECKING:
    from mftrun.data.report import DataReport
    from mftrun.launch import StopRequest

log = logging.getLogger(__name__)


class RunData(Protocol):
    """The data of one run."""

    def prepare(self, checkpoint: Path | None) -> DataReport:
        """Makes what must be there before there are ranks, in the parent.

        Args:
            checkpoint: Where the run goes on from; None from its beginning.

        Raises:
            DataError, ConfigError: The data cannot be had, or the policies refuse some of it.
        """

    def supplied(self, checkpoint: Path | None) -> AbstractContextManager[None]:
        """Inside, the parent sees to it that the ranks get their data."""

    def epochs(self, stop: StopRequest, *, announces: bool) -> Epochs:
        """What a rank trains on.

        Args:
            stop: Ends a rank's wait for data.
            announces: Whether this rank is the one that tells how far the ranks are.
        """

    def valid(self) -> SampleTable:
        """The validation samples."""

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""


def run_data(config: RunConfig, run_dir: Path) -> RunData:
    """The data of a run, as its configuration wants it."""
    if config.data.shard_samples is None:
        return WholeData(config, run_dir)
    from mftrun.jobs.streaming import ShardedData

    return ShardedData(config, run_dir)


class WholeData:
    """All samples are tokenized before the run starts; see `RunData`.

    Args:
        config: The run's configuration.
        run_dir: The run's folder.
    """

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        self._config = config
        self._run_dir = run_dir
        self._folder = RunLayout(run_dir).data

    def prepare(self, checkpoint: Path | None) -> DataReport:
        """See `RunData`."""
        report = prepare_tables(self._config, self._run_dir, resuming=checkpoint is not None)
        self._name_undrawn()
        return report

    def supplied(self, checkpoint: Path | None) -> AbstractContextManager[None]:
        """Nothing more is needed."""
        return nullcontext()

    def epochs(self, stop: StopRequest, *, announces: bool) -> Epochs:
        """See `RunData`."""
        return SameSamples(self._train, self._planner)

    def valid(self) -> SampleTable:
        """See `RunData`."""
        return SampleTable.open(self._folder / VALID_TABLE)

    def total_steps(self) -> int:
        """Steps of its epochs, of ``max_steps``, or the fewer of both."""
        epochs, most = self._config.train.epochs, self._config.train.max_steps
        if epochs is None:
            assert most is not None, "the schema refuses a run without an end"
            return most
        steps = self._planner.total_batches(epochs)
        return steps if most is None else min(steps, most)

    def _name_undrawn(self) -> None:
        """Says which tasks are only watched; refuses a sampler that does not fit, before a model loads."""
        rows = self._planner.epoch(0).rows
        drawn = np.bincount(self._train.task[rows.samples], minlength=len(self._train.tasks))
        names = [name for name, count in zip(self._train.tasks, drawn.tolist(), strict=True) if not count]
        if names:
            listed = ", ".join(names)
            log.warning("the first epoch draws no sample of %s; weightings count them all the same", listed)

    @cached_property
    def _train(self) -> SampleTable:
        return open_tables(self._folder)[0]

    @cached_property
    def _planner(self) -> Planner:
        return build_planner(self._config, self._train, self._config.seed)
