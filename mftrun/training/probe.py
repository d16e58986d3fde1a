"""The probe: losses of all tasks on a few validation samples, for weightings that watch them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from mftrun.data.plan import EpochPlan, evaluation_plan
from mftrun.training.evaluation import ForwardPass

if TYPE_CHECKING:
    from torch import nn

    from mftrun.data.batch import Samples
    from mftrun.data.draws import Draws
    from mftrun.data.mixture import Int64Array
    from mftrun.data.rows import RowBuilder
    from mftrun.distributed import Ranks


class Probe:
    """Measures the losses of draws of validation samples, forward only.

    Args:
        ranks: Say which rank this is, and its device.
        samples: The tokenized validation samples.
        draws: Chooses some of them, of every task.
        rows: Makes rows of them, as in training but for samples that it would cut.
        max_length: Most tokens of a row.
        micro_batch_size: Rows in one forward of one rank.
        pad_id: Token that fills rows.
    """

    def __init__(
        self,
        ranks: Ranks,
        samples: Samples,
        draws: Draws,
        rows: RowBuilder,
        max_length: int,
        micro_batch_size: int,
        pad_id: int,
    ) -> None:
        self._ranks = ranks
        self._samples = samples
        self._draws = draws
        self._rows = rows
        self._max_length = max_length
        self._micro_batch_size = micro_batch_size
        self._pad_id = pad_id
        self._newest: tuple[int, ForwardPass] | None = None

    @property
    def device(self) -> torch.device:
        """Where losses are measured."""
        device: torch.device = self._ranks.device
        return device

    def sums(self, model: nn.Module, number: int) -> torch.Tensor:
        """Sums up one rank's part of the losses of a draw; over all ranks, that is every task.

        Dropout is off, no random number is drawn, ranks exchange nothing of their own and the host does not
        wait for the device. Every rank must call it.

        Args:
            model: The prepared model-with-nll; goes back to training mode.
            number: Of the draw, from 0.

        Returns:
            float64 [2K] on the device, a `TaskSums.vector`: sums of nll, then weighted counts of targets.
        """
        return self._forward(number).run(model)[0]

    def nothing(self) -> torch.Tensor:
        """What `sums` gives for no samples: float64 [2K] of zeros on the device."""
        size = 2 * len(self._samples.tasks)
        return torch.zeros(size, dtype=torch.float64, device=self.device)

    def _forward(self, number: int) -> ForwardPass:
        """The newest draw's is kept, as a draw may be asked for many times in a row."""
        if self._newest is None or self._newest[0] != number:
            plan = self._plan(self._draws.of(number))
            forward = ForwardPass(self._ranks, self._samples, plan, self._micro_batch_size, self._pad_id)
            self._newest = number, forward
        return self._newest[1]

    def _plan(self, chosen: Int64Array) -> EpochPlan:
        """Rows of the chosen samples, int64[n]. The plan of their lengths counts them from 0."""
        plan = evaluation_plan(self._samples.lengths[chosen], self._rows, self._max_length)
        return replace(plan, rows=replace(plan.rows, samples=chosen[plan.rows.samples]))
