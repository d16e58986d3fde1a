"""Writing a checkpoint: all ranks at once, so that it appears when each has done its part, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from mftrun.files import write_json
from mftrun.training import snapshot
from mftrun.training.changes import CONFIG
from mftrun.training.checkpoint import Checkpoints
from mftrun.training.progress import Progress
from mftrun.training.tensors import FOLDER, Writing, gathered

if TYPE_CHECKING:
    from mftrun.distributed import Engine

log = logging.getLogger(__name__)

PROGRESS = "progress.json"
MODEL = "model"


class Export(Protocol):
    """Puts the model into checkpoints as plain transformers and peft read it."""

    def gathered(self) -> dict[str, torch.Tensor]:
        """The weights, whole on the main rank. A collective call."""

    def write(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        """Writes them, with all that belongs to them; for the main rank.

        Args:
            folder: A new one.
            weights: As `gathered` gave them.

        Raises:
            OSError: They could not be written.
        """


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that is being written."""

    step: int
    epoch_end: bool
    tensors: Writing


class CheckpointWriter:
    """Writes one checkpoint at a time. Every rank must call every method.

    Faults of the disk are logged where they happen. Then there is no checkpoint, on any
    rank; earlier ones stay.

    Args:
        engine: Holds the model and the optimizer.
        checkpoints: The run's checkpoint folder.
        config: The resolved configuration, kept in every checkpoint.
        export: Puts the model into every checkpoint in a form for others; None does not.
    """

    def __init__(
        self, engine: Engine, checkpoints: Checkpoints, config: Mapping[str, Any], export: Export | None
    ) -> None:
        self._engine = engine
        self._ranks = engine.ranks
        self._checkpoints = checkpoints
        self._config = config
        self._export = export
        self._pending: _Pending | None = None

    @property
    def is_pending(self) -> bool:
        """Whether a checkpoint is begun and not settled; the same on all ranks."""
        return self._pending is not None

    def begin(
        self, progress: Progress, state: Mapping[str, Any], *, epoch_end: bool, background: bool
    ) -> bool:
        """Begins a checkpoint; `settle` must follow.

        Args:
            progress: Where the run stands.
            state: What the ranks share, in plain containers.
            epoch_end: Whether an epoch ends here.
            background: Whether to return while tensors are written, from a copy in the host's memory.

        Returns:
            Whether it is begun; the same on all ranks.
        """
        assert self._pending is None, "settled before"
        step, folder = progress.step, self._checkpoints.scratch(progress.step)
        begun = (
            self._done_by_main(step, lambda: self._share(progress, state))
            and self._exported(step, folder)
            and self._written(step, folder, epoch_end, background)
        )
        if not begun:
            self._discard(step)
        return begun

    def settle(self) -> int | None:
        """Waits until what was begun is written, and lets it appear.

        Returns:
            The step, on all ranks; None where it could not be written.
        """
        pending, self._pending = self._pending, None
        assert pending is not None, "begun before"
        own: list[list[Any]] = []
        failed = not self._done(pending.step, lambda: own.append(pending.tensors.wait()))
        complete = not self._ranks.any(failed)
        written = gathered(own[0]) if complete else []
        if complete and self._done_by_main(pending.step, lambda: self._publish(pending, written)):
            return pending.step
        self._discard(pending.step)
        return None

    def is_over(self) -> bool:
        """Whether every rank has written its part, or failed to: `settle` does not wait for it."""
        assert self._pending is not None, "begun before"
        return not self._ranks.any(not self._pending.tensors.is_over)

    def _share(self, progress: Progress, state: Mapping[str, Any]) -> None:
        self._checkpoints.begin(progress.step)
        folder = self._checkpoints.scratch(progress.step)
        (folder / FOLDER).mkdir()
        snapshot.save_object(state, folder / snapshot.STATE)
        write_json(folder / PROGRESS, progress.once_kept().to_dict())
        write_json(folder / CONFIG, self._config)

    def _exported(self, step: int, folder: Path) -> bool:
        export = self._export
        if export is None:
            return True
        weights = export.gathered()
        return self._done_by_main(step, lambda: export.write(folder / MODEL, weights))

    def _written(self, step: int, folder: Path, epoch_end: bool, background: bool) -> bool:
        def write() -> None:
            tensors = Writing(self._engine, folder / FOLDER, background=background)
            self._pending = _Pending(step, epoch_end, tensors)

        return self._done(step, write)

    def _publish(self, pending: _Pending, written: list[list[Any]]) -> None:
        pending.tensors.finish(written)
        log.info("saved %s", self._checkpoints.publish(pending.step, pending.epoch_end))

    def _discard(self, step: int) -> None:
        if self._ranks.is_main:
            self._checkpoints.discard(step)

    def _done_by_main(self, step: int, action: Callable[[], None]) -> bool:
        """Lets the main rank act, and says on all of them whether it could."""
        return self._ranks.any(self._ranks.is_main and self._done(step, action))

    def _done(self, step: int, action: Callable[[], None]) -> bool:
        """Acts, and says whether it could; why not is for the log."""
        try:
            action()
        except OSError as error:
            log.error(
                "the checkpoint of step %d could not be saved (%s). Earlier checkpoints are untouched, and "
                "the next save tries again. Free some space under %s, or lower checkpoint.keep_last.",
                step,
                error,
                self._checkpoints.folder,
            )
            return False
        return True
