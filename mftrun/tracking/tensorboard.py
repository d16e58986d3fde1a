"""Metrics to TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mftrun.tracking.base import RunInfo
from mftrun.tracking.summary import Summary

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes every metric as a scalar of its own name to `RUN/tensorboard`."""

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None

    def check(self) -> None:
        """Nothing to refuse."""

    def start(self, run: RunInfo) -> None:
        """Opens an event file; on resume TensorBoard is told to forget the steps after the checkpoint."""
        from torch.utils.tensorboard import SummaryWriter

        # Without a checkpoint everything an earlier attempt left in this directory is void.
        purge = 0 if run.resumed_step is None else run.resumed_step + 1
        self._writer = SummaryWriter(str(run.run_dir / "tensorboard"), purge_step=purge)

    def log(self, step: int, record: Mapping[str, float]) -> None:
        """Adds one point to the curve of each metric."""
        assert self._writer is not None, "start() comes first"
        for key, value in record.items():
            self._writer.add_scalar(key, value, step)

    def finish(self, summary: Summary | None, exit_code: int) -> None:
        """Writes what is buffered and closes the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
