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

    from mftrun.losses.objective import Objective
    from mftrun.training.meter import Meter

log = logging.getLogger(__name__)

PROGRESS = "progress.json"


class Saver:
    """Writes checkpoints of one run and brings them back.

    Args:
        accelerator: Joins the ranks.
        checkpoints: The run's checkpoint folder.
        model: The prepared model.
        optimizer: The prepared optimizer.
        objective: Its state is saved, too.
        config: The resolved configuration, kept in every checkpoint.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        checkpoints: Checkpoints,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        config: Mapping[str, Any],
    ) -> None:
        self.checkpoints = checkpoints
        self._accelerator = accelerator
        self._model = accelerator.unwrap_model(model)
        self._optimizer = optimizer
        self._objective = objective
        self._config = config

    def save(self, progress: Progress, meter: Meter, epoch_end: bool = False) -> bool:
        """Saves a checkpoint; every rank must call it.

        A disk that is full does not end the run: the fault is logged, earlier checkpoints stay, and the next
        save tries again.

        Returns:
            Whether it is on disk; the same on all ranks.
        """
        randoms = gather_object([snapshot.random_state()])
        state = {"meter": meter.state(), "objective": self._objective.state_dict(), "random": randoms}
        written = self._accelerator.is_main_process and self._write(progress, state, epoch_end)
        told = torch.tensor(int(written), device=self._accelerator.device)
        return bool(self._accelerator.reduce(told, reduction="sum"))

    def restore(self, checkpoint: Path, meter: Meter) -> Progress:
        """Brings every object back to the state of ``checkpoint``; every rank must call it.

        Raises:
            ConfigError: The checkpoint belongs to another model.
        """
        self.load_weights(checkpoint)
        self._optimizer.load_state_dict(snapshot.load_object(checkpoint / snapshot.OPTIMIZER))
        state = snapshot.load_object(checkpoint / snapshot.STATE)
        self._objective.load_state_dict(state["objective"])
        meter.load_state(state["meter"])
        self._restore_random(state["random"])
        return Progress.from_dict(json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8")))

    def load_weights(self, checkpoint: Path) -> None:
        """Brings the model alone back to ``checkpoint``.

        Raises:
            ConfigError: The checkpoint belongs to another model.
        """
        try:
            snapshot.load_weights(self._model, checkpoint)
        except ValueError as error:
            raise ConfigError("resume", str(error)) from error

    def _write(self, progress: Progress, state: dict[str, Any], epoch_end: bool) -> bool:
        kept_best = progress.step if progress.best_step == progress.step else progress.kept_best_step

        def fill(folder: Path) -> None:
            snapshot.save_weights(self._model, folder)
            snapshot.save_object(self._optimizer.state_dict(), folder / snapshot.OPTIMIZER)
            snapshot.save_object(state, folder / snapshot.STATE)
            write_json(folder / PROGRESS, {**progress.to_dict(), "kept_best_step": kept_best})
            write_json(folder / CONFIG, self._config)

        try:
            path = self.checkpoints.save(progress.step, epoch_end, fill)
            self.checkpoints.prune(kept_best)
        except OSError as error:
            log.error(
                "the checkpoint of step %d could not be saved (%s). Earlier checkpoints are untouched, and "
                "the next save tries again. Free some space under %s, or lower checkpoint.keep_last.",
                progress.step,
                error,
                self.checkpoints.folder,
            )
            return False
        progress.kept_best_step = kept_best
        log.info("saved %s", path)
        return True

    def _restore_random(self, states: list[dict[str, Any]]) -> None:
        rank, ranks = self._accelerator.process_index, self._accelerator.num_processes
        if len(states) != ranks:
            log.warning(
                "saved by %d ranks, resumed by %d: dropout draws other masks from here", len(states), ranks
            )
        if rank < len(states):
            snapshot.set_random_state(states[rank])
