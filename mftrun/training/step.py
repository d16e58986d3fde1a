"""One optimizer step over a window of micro-batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from mftrun.training.lookahead import forward, look_ahead, places

if TYPE_CHECKING:
    from mftrun.data.batch import Batch
    from mftrun.distributed import Engine
    from mftrun.losses.metrics import TaskSums
    from mftrun.losses.objective import Objective
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

    What must be known of the whole global batch first comes from `look_ahead`.

    Args:
        engine: Holds the prepared model.
        objective: Turns nlls into loss shares.
        window: This rank's micro-batches; their number must be the same on all ranks.
        agreement: What the whole global batch holds.
        meter: Running sums since the last log line.
        sums: Takes this rank's losses of this step; None where nobody needs them.
        gradients: Told of each micro-batch right before its forward pass; None where nobody needs them.
    """
    window, known = look_ahead(engine, objective, window, agreement)
    for batch, last in mark_last(window):
        if gradients is not None:
            gradients.attend(batch)
        batch = batch.to(engine.ranks.device, non_blocking=True)
        with engine.micro_step(is_last=last):
            output = forward(engine.model, batch)
            share = objective.loss(output.nll, *places(batch, agreement), statistics=known.statistics)
            meter.add(output.nll.detach(), batch.task_ids, batch.target_weights, share.detach())
            if sums is not None:
                sums.add(output.nll, batch.task_ids, batch.target_weights)
            if output.router is not None:
                router = output.router.share(known.choices_of(output.router, engine.ranks), agreement.tokens)
                meter.add_router(router.detach())
                share = share + router.to(share.dtype)
            engine.backward(share)
