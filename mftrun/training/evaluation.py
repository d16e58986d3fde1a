"""Exact validation losses: every validation sample once, summed over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mftrun.data.batch import collate
from mftrun.data.plan import EpochPlan
from mftrun.losses.metrics import TaskSums

if TYPE_CHECKING:
    from torch import nn

    from mftrun.data.batch import Batch, Samples
    from mftrun.data.mixture import Int64Array
    from mftrun.distributed import Ranks
    from mftrun.launch import StopRequest


class ForwardPass:
    """One rank's part of all rows of a plan, forward only.

    Args:
        ranks: Say which rank this is, and its device.
        samples: What the plan's rows are made of.
        plan: The rows, as a single global batch.
        micro_batch_size: Rows in one forward of one rank.
        pad_id: Token that fills rows.
    """

    def __init__(
        self, ranks: Ranks, samples: Samples, plan: EpochPlan, micro_batch_size: int, pad_id: int
    ) -> None:
        self._device = ranks.device
        self._samples = samples
        self._plan = plan
        self._pad_id = pad_id
        # As many micro-batches on every rank: sharded models join the ranks in each forward.
        self._window = []
        if plan.rows.num_rows:
            self._window = plan.window(0, ranks.index, ranks.count, micro_batch_size)

    def run(self, model: nn.Module, stopped: Callable[[], bool] = lambda: False) -> tuple[torch.Tensor, bool]:
        """Sums the losses, without reading anything back from the device.

        Dropout is off and no random number is drawn.

        Args:
            model: The prepared model-with-nll; goes back to training mode.
            stopped: Asked before every micro-batch; True leaves the rest out.

        Returns:
            float64 [2K] on the device, this rank's `TaskSums.vector`; and whether something was left out.
        """
        sums = TaskSums(len(self._samples.tasks), self._device)
        with _measuring(model):
            for rows in self._window:
                if stopped():
                    return sums.vector(), True
                batch = self._batch(rows)
                output = model(batch.input_ids, batch.position_ids, batch.predict_from, batch.target_ids)
                sums.add(output.nll, batch.task_ids, batch.target_weights)
        return sums.vector(), False

    def _batch(self, rows: Int64Array) -> Batch:
        batch = collate(self._samples, self._plan.rows, rows, self._pad_id, self._plan.layout)
        if self._device.type == "cuda":
            batch = batch.pin()  # from other memory, copying would wait for the device
        return batch.to(self._device, non_blocking=True)


class Evaluator:
    """Measures the token-mean nll of every task over the whole validation set.

    A target of weight w counts as w tokens, as in training.

    Args:
        ranks: The ranks of the run.
        samples: The tokenized validation samples.
        plan: All of them as rows, without any random number.
        micro_batch_size: Rows in one forward of one rank.
        pad_id: Token that fills rows.
    """

    def __init__(
        self, ranks: Ranks, samples: Samples, plan: EpochPlan, micro_batch_size: int, pad_id: int
    ) -> None:
        self._ranks = ranks
        self._tasks = samples.tasks
        self._forward = ForwardPass(ranks, samples, plan, micro_batch_size, pad_id)

    def losses(self, model: nn.Module, stop: StopRequest) -> dict[str, float] | None:
        """Validation loss of every task that has validation targets, in nats per token.

        Dropout is off and no random number is drawn. Every rank must call it.

        Args:
            model: The prepared model-with-nll; goes back to training mode.
            stop: Looked at between micro-batches.

        Returns:
            The losses by task; None when a signal cut the evaluation short on some rank.
        """
        # Together: ranks that share out a model must leave at the same micro-batch.
        local, stopped = self._forward.run(model, lambda: self._ranks.any(stop.stop_requested))
        return None if stopped else self._reduce(local)

    def _reduce(self, local: torch.Tensor) -> dict[str, float]:
        whole = TaskSums(len(self._tasks), torch.device("cpu"))
        whole.load_vector(self._ranks.sum(local).cpu())
        return {name: mean for name, mean in zip(self._tasks, whole.means(), strict=True) if mean is not None}


@contextmanager
def _measuring(model: nn.Module) -> Iterator[None]:
    """Inside, the model neither drops anything out nor keeps what a backward would need."""
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()
