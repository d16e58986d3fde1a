"""Exact validation losses: every validation sample once, summed over all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from mftrun.data.batch import collate
from mftrun.data.plan import EpochPlan
from mftrun.losses.metrics import TaskSums

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from mftrun.data.batch import Samples
    from mftrun.launch import StopRequest


class Evaluator:
    """Measures the token-mean nll of every task over the whole validation set.

    A target of weight w counts as w tokens, as in training.

    Args:
        accelerator: Joins the ranks.
        samples: The tokenized validation samples.
        plan: All of them as rows, without any random number.
        micro_batch_size: Rows in one forward of one rank.
        pad_id: Token that fills rows.
    """

    def __init__(
        self, accelerator: Accelerator, samples: Samples, plan: EpochPlan, micro_batch_size: int, pad_id: int
    ) -> None:
        self._accelerator = accelerator
        self._samples = samples
        self._plan = plan
        self._pad_id = pad_id
        ranks = accelerator.num_processes
        self._window = (
            plan.window(0, accelerator.process_index, ranks, micro_batch_size) if plan.rows.num_rows else []
        )

    def losses(self, model: nn.Module, stop: StopRequest) -> dict[str, float] | None:
        """Validation loss of every task that has validation targets, in nats per token.

        Dropout is off and no random number is drawn. Every rank must call it.

        Args:
            model: The prepared model-with-nll; goes back to training mode.
            stop: Looked at between micro-batches.

        Returns:
            The losses by task; None when a signal cut the evaluation short on some rank.
        """
        sums = TaskSums(len(self._samples.tasks), self._accelerator.device)
        model.eval()
        try:
            stopped = self._sum(model, sums, self._window, stop)
        finally:
            model.train()
        return self._reduce(sums, stopped)

    @torch.no_grad()
    def _sum(
        self, model: nn.Module, sums: TaskSums, window: Sequence[npt.NDArray[np.int64]], stop: StopRequest
    ) -> bool:
        for rows in window:
            if stop.stop_requested:
                return True
            batch = collate(self._samples, self._plan.rows, rows, self._pad_id, self._plan.layout)
            batch = batch.to(self._accelerator.device)
            output = model(batch.input_ids, batch.position_ids, batch.predict_from, batch.target_ids)
            sums.add(output.nll, batch.task_ids, batch.target_weights)
        return False

    def _reduce(self, sums: TaskSums, stopped: bool) -> dict[str, float] | None:
        local = sums.vector()
        flagged = torch.cat([local, local.new_tensor([float(stopped)])])
        total = self._accelerator.reduce(flagged, reduction="sum").cpu()
        if total[-1] > 0:
            return None
        whole = TaskSums(len(self._samples.tasks), torch.device("cpu"))
        whole.load_vector(total[:-1])
        return {
            name: mean
            for name, mean in zip(self._samples.tasks, whole.means(), strict=True)
            if mean is not None
        }
