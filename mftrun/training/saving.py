"""Saving and restoring the loop's objects: the first rank writes, every rank's generators are kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from mftrun.errors import ConfigError
from mftrun.files import write_json
from mftrun.training import snapshot
from mftrun.training.changes import CONFIG
from mftrun.training.checkpoint import Checkpoints
from mftrun.training.progress import Progress

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from mftrun.training.balance import Balance
    from mftrun.training.meter import Meter

log = logging.getLogger(__name__)

PROGRESS = "progress.json"


def read_progress(checkpoint: Path) -> Progress:
    """Where the run stood when a checkpoint was taken."""
    return Progress.from_dict(json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8")))


class Saver:
    """Writes checkpoints of one run and brings them back.

    Args:
        accelerator: Joins the ranks.
        checkpoints: The run's checkpoint folder.
        model: The prepared model.
        optimizer: The prepared optimizer.
        balance: Its state and the objective's are saved, too.
        config: The resolved configuration, kept in every checkpoint.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        checkpoints: Checkpoints,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        balance: Balance,
        config: Mapping[str, Any],
    ) -> None:
        self.checkpoints = checkpoints
        self._accelerator = accelerator
        self._model = accelerator.unwrap_model(model)
        self._optimizer = optimizer
        self._balance = balance
        self._config = config

    def save(self, progress: Progress, meter: Meter, epoch_end: bool = False) -> bool:
        """Saves a checkpoint; every rank must call it.

        A disk that is full does not end the run: the fault is logged, earlier checkpoints stay, and the next
        save tries again.

        Returns:
            Whether it is on disk; the same on all ranks.
        """
        randoms = gather_object([snapshot.random_state()])
        state = {"meter": meter.state(), "balance": self._balance.state(), "random": randoms}
        is_main = self._accelerator.is_main_process
        written = self._told(is_main and self._write(progress, state, epoch_end))
        if written:
            progress.note_kept()  # on every rank: which checkpoint to go back to may hang on it
        return written

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
        if self._accelerator.is_main_process:
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
        step, progress.rollback = progress.rollback, None
        assert step is not None, "a rollback was asked for"
        is_main = self._accelerator.is_main_process
        if not self._told(is_main and self.checkpoints.holds(step)):
            log.warning("not going back to step %d: there is no whole checkpoint of it", step)
            return False
        self._load_trained(self.checkpoints.path(step))
        progress.rewind_patience(read_progress(self.checkpoints.path(step)))
        log.info("went back to the model and the optimizer of step %d", step)
        return True

    def load_weights(self, checkpoint: Path) -> None:
        """Brings the model alone back to ``checkpoint``.

        Raises:
            ConfigError: The checkpoint belongs to another model.
        """
        try:
            snapshot.load_weights(self._model, checkpoint)
        except ValueError as error:
            raise ConfigError("resume", str(error)) from error

    def _load_trained(self, checkpoint: Path) -> None:
        self.load_weights(checkpoint)
        self._optimizer.load_state_dict(snapshot.load_object(checkpoint / snapshot.OPTIMIZER))

    def _told(self, first_says: bool) -> bool:
        """What the first rank says, on all of them; the others say no."""
        told = torch.tensor(int(first_says), device=self._accelerator.device)
        return bool(self._accelerator.reduce(told, reduction="sum"))

    def _write(self, progress: Progress, state: dict[str, Any], epoch_end: bool) -> bool:
        kept = progress.once_kept()

        def fill(folder: Path) -> None:
            snapshot.save_weights(self._model, folder)
            snapshot.save_object(self._optimizer.state_dict(), folder / snapshot.OPTIMIZER)
            snapshot.save_object(state, folder / snapshot.STATE)
            write_json(folder / PROGRESS, kept.to_dict())
            write_json(folder / CONFIG, self._config)

        try:
            path = self.checkpoints.save(progress.step, epoch_end, fill)
        except OSError as error:
            log.error(
                "the checkpoint of step %d could not be saved (%s). Earlier checkpoints are untouched, and "
                "the next save tries again. Free some space under %s, or lower checkpoint.keep_last.",
                progress.step,
                error,
                self.checkpoints.folder,
            )
            return False
        log.info("saved %s", path)
        self._prune(kept)
        return True

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
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        if len(states) != ranks:
            log.warning(
                "saved by %d ranks, resumed by %d: dropout draws other masks from here", len(states), ranks
            )
        if rank < len(states):
            snapshot.set_random_state(states[rank])
