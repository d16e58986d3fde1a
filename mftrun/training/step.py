"""One optimizer step over a window of micro-batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mftrun.data.batch import Batch
    from mftrun.distributed import Engine
    from mftrun.losses.counts import Counts
    from mftrun.losses.metrics import TaskSums
    from mftrun.losses.objective import Objective
    from mftrun.models.with_nll import NllOutput
    from mftrun.training.agreement import Agreement
    from mftrun.training.meter import Meter


class GradientWatch(Protocol):
    """Measures gradients while they are computed."""

    def attend(self, batch: Batch) -> None:
        """The next forward and backward pass will be those of this micro-batch.

        Args:
            batch: The micro-batch as it comes from the window, not yet on the device.
        """


def mark_last(items: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Pairs every item with whether it is the last one, without knowing the length."""
    iterator = iter(items)
    current = next(iterator, None)
    while current is not None:
        following = next(iterator, None)
        yield current, following is None
        current = following


def accumulate(
    engine: Engine,
    objective: Objective,
    window: Iterable[Batch],
    agreement: Agreement,
    meter: Meter,
    sums: TaskSums | None = None,
    gradients: GradientWatch | None = None,
) -> None:
    """Adds the gradient of this rank's window to the parameters, and its losses to ``meter``.

    The shares of all micro-batches and ranks add up to the objective of the global batch.

    An objective that must know the nlls of the whole global batch first gets them from a forward pass of its
    own, without gradients, over the window: about a third more time per step, and no more memory.

    Args:
        engine: Holds the prepared model.
        objective: Turns nlls into loss shares.
        window: This rank's micro-batches; their number must be the same on all ranks.
        agreement: What the whole global batch holds.
        meter: Running sums since the last log line.
        sums: Takes this rank's losses of this step; None where nobody needs them.
        gradients: Told of each micro-batch right before its forward pass; None where nobody needs them.
    """
    statistics = None
    if objective.needs_statistics:
        window = list(window)
        statistics = _statistics(engine, objective, window, agreement)
    for batch, last in mark_last(window):
        if gradients is not None:
            gradients.attend(batch)
        batch = batch.to(engine.ranks.device, non_blocking=True)
        with engine.micro_step(is_last=last):
            output = _forward(engine.model, batch)
            share = objective.loss(output.nll, *_places(batch, agreement), statistics=statistics)
            meter.add(output.nll.detach(), batch.task_ids, batch.target_weights, share.detach())
            if sums is not None:
                sums.add(output.nll, batch.task_ids, batch.target_weights)
            if output.router_loss is not None:
                router = output.router_loss * (batch.num_tokens / agreement.tokens)
                meter.add_router(router.detach())
                share = share + router
            engine.backward(share)


def _statistics(
    engine: Engine,
    objective: Objective,
    window: Sequence[Batch],
    agreement: Agreement,
) -> Tensor:
    """What the objective must know of the global batch (one all-reduce), float64 [S].

    The generators are left as they were found, so that the pass with gradients draws the same dropout masks.
    """
    device = engine.ranks.device
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        moved = (batch.to(device, non_blocking=True) for batch in window)
        parts = [
            objective.statistics(_forward(engine.model, one).nll, *_places(one, agreement)) for one in moved
        ]
    return engine.ranks.sum(torch.stack(parts).sum(0))


def _forward(model: nn.Module, batch: Batch) -> NllOutput:
    output: NllOutput = model(batch.input_ids, batch.position_ids, batch.predict_from, batch.target_ids)
    return output


def _places(batch: Batch, agreement: Agreement) -> tuple[Tensor, Tensor, Tensor, Counts, Tensor]:
    """What an objective takes after the nlls. Samples are told apart by their pieces."""
    return batch.task_ids, batch.piece_ids, batch.sample_sizes, agreement.counts, batch.target_weights
