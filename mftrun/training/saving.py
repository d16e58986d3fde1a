"""Saving and restoring the loop's objects: each rank writes its part, every rank's generators are kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError
from mftrun.training import snapshot, tensors
from mftrun.training.checkpoint import Checkpoints
from mftrun.training.progress import Progress
from mftrun.training.writing import PROGRESS, CheckpointWriter, Export

if TYPE_CHECKING:
    from mftrun.distributed import Engine
    from mftrun.training.balance import Balance
    from mftrun.training.meter import Meter

log = logging.getLogger(__name__)

__all__ = ["PROGRESS", "Saver", "read_progress"]


def read_progress(checkpoint: Path) -> Progress:
    """Where the run stood when a checkpoint was taken."""
    return Progress.from_dict(json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8")))


class Saver:
    """Writes checkpoints of one run and brings them back.

    Args:
        engine: Holds the model and the optimizer.
        checkpoints: The run's checkpoint folder.
        balance: Its state and the objective's are saved, too.
        config: The resolved configuration, kept in every checkpoint.
        export: Puts the model into every checkpoint in a form for others; None does not.
    """

    def __init__(
        self,
        engine: Engine,
        checkpoints: Checkpoints,
        balance: Balance,
        config: Mapping[str, Any],
        export: Export | None = None,
    ) -> None:
        self.checkpoints = checkpoints
        self._engine = engine
        self._ranks = engine.ranks
        self._balance = balance
        self._writer = CheckpointWriter(engine, checkpoints, config, export)

    def save(
        self, progress: Progress, meter: Meter, epoch_end: bool = False, *, background: bool = False
    ) -> bool:
        """Saves a checkpoint; every rank must call it.

        A disk that is full does not end the run: the fault is logged, earlier checkpoints stay, and the next
        save tries again.

        Args:
            progress: Where the run stands; notes of which losses there is a checkpoint.
            meter: Saved, too.
            epoch_end: Whether an epoch ends here.
            background: Whether to return while files are written, at most one checkpoint at a time. It
                appears, and `progress` hears of it, in the next call of `settle` or `save`.

        Returns:
            Whether it is on disk, or on its way there; the same on all ranks.
        """
        self.settle(progress)
        randoms = self._ranks.gather(snapshot.random_state())
        state = {"meter": meter.state(), "balance": self._balance.state(), "random": randoms}
        begun = self._writer.begin(progress, state, epoch_end=epoch_end, background=background)
        return begun and (background or self.settle(progress))

    def settle(self, progress: Progress, *, wait: bool = True) -> bool:
        """Lets the checkpoint appear that is being written; every rank must call it.

        Args:
            progress: Notes of which losses there is a checkpoint now.
            wait: Whether to wait for it; else nothing happens until every rank has written its part.

        Returns:
            False where it could not be written, on all ranks; True where there is none.
        """
        if not self._writer.is_pending or not (wait or self._writer.is_over()):
            return True
        step = self._writer.settle()
        if step is None:
            return False
        progress.note_kept(step)  # on every rank: which checkpoint to go back to may hang on it
        if self._ranks.is_main:
            self._prune(progress)
        return True

    def restore(self, checkpoint: Path, meter: Meter) -> Progress:
        """Brings every object back to the state of ``checkpoint``; every rank must call it.

        Where that is of another folder, the first rank takes it over with the best ones of its run, which
        the run may go back to or end on.

        Raises:
            ConfigError: The checkpoint belongs to another model.
        """
        self._load_trained(checkpoint)
        state = snapshot.load_object(checkpoint / snapshot.STATE)
        self._balance.load_state(state["balance"])
        meter.load_state(state["meter"])
        self._restore_random(state["random"])
        progress = read_progress(checkpoint)
        if self._ranks.is_main:
            self._adopt(checkpoint, progress)
        return progress

    def roll_back(self, progress: Progress) -> bool:
        """Takes model and optimizer back to the checkpoint that ``progress.rollback`` names; every rank must.

        Step, place in the data, generators and task weights stay. The first rank looks whether the checkpoint
        is there; where it is not, the run goes on with what it has, and a warning says so.

        Args:
            progress: Forgets its ``rollback``, and has the patience and the line it had there.

        Returns:
            Whether it went back; the same on all ranks.
        """
        self.settle(progress)
        step, progress.rollback = progress.rollback, None
        assert step is not None, "a rollback was asked for"
        is_main = self._ranks.is_main
        if not self._ranks.any(is_main and self.checkpoints.holds(step)):
            log.warning("not going back to step %d: there is no whole checkpoint of it", step)
            return False
        self._load_trained(self.checkpoints.path(step))
        progress.rewind_patience(read_progress(self.checkpoints.path(step)))
        log.info("went back to the model and the optimizer of step %d", step)
        return True

    def load_weights(self, checkpoint: Path) -> None:
        """Brings the model alone back to ``checkpoint``; every rank must call it.

        Raises:
            ConfigError: The checkpoint belongs to another model.
        """
        self._load_trained(checkpoint, optimizer=False)

    def _load_trained(self, checkpoint: Path, *, optimizer: bool = True) -> None:
        assert not self._writer.is_pending, "settled before"
        try:
            tensors.read_tensors(self._engine, checkpoint / tensors.FOLDER, optimizer=optimizer)
        except ValueError as error:
            raise ConfigError("resume", str(error)) from error

    def _prune(self, progress: Progress) -> None:
        try:
            self.checkpoints.prune(progress.kept_steps)
        except OSError as error:
            log.warning("old checkpoints stay, as one could not be removed: %s", error)

    def _adopt(self, checkpoint: Path, progress: Progress) -> None:
        own = self.checkpoints.path(progress.step)
        # Beside a checkpoint that was renamed, those of other steps may be of another course of the run.
        if checkpoint.name == own.name and checkpoint.parent.resolve() != own.parent.resolve():
            self.checkpoints.adopt(checkpoint.parent, {progress.step, *progress.kept_steps})

    def _restore_random(self, states: list[dict[str, Any]]) -> None:
        rank, ranks = self._ranks.index, self._ranks.count
        if len(states) != ranks:
            log.warning(
                "saved by %d ranks, resumed by %d: dropout draws other masks from here", len(states), ranks
            )
        if rank < len(states):
            snapshot.set_random_state(states[rank])
