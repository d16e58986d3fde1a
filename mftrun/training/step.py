"""One optimizer step over a window of micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mftrun.data.batch import Batch
    from mftrun.losses.objective import Objective
    from mftrun.training.agreement import Agreement
    from mftrun.training.meter import Meter


def mark_last(items: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Pairs every item with whether it is the last one, without knowing the length."""
    iterator = iter(items)
    current = next(iterator, None)
    while current is not None:
        following = next(iterator, None)
        yield current, following is None
        current = following


def accumulate(
    accelerator: Accelerator,
    model: nn.Module,
    objective: Objective,
    window: Iterable[Batch],
    agreement: Agreement,
    meter: Meter,
) -> None:
    """Adds the gradient of this rank's window to the parameters, and its losses to ``meter``.

    The shares of all micro-batches and ranks add up to the objective of the global batch. Ranks exchange
    gradients once, in the last backward; DDP averages them, so each share is multiplied by the number of
    ranks.

    Args:
        accelerator: Joins the ranks.
        model: The prepared model-with-nll.
        objective: Turns nlls into loss shares.
        window: This rank's micro-batches; their number must be the same on all ranks.
        agreement: What the whole global batch holds.
        meter: Running sums since the last log line.
    """
    for batch, last in mark_last(window):
        batch = batch.to(accelerator.device, non_blocking=True)
        with nullcontext() if last else accelerator.no_sync(model):
            output = model(batch.input_ids, batch.position_ids, batch.predict_from, batch.target_ids)
            share = objective.loss(
                output.nll,
                batch.task_ids,
                batch.piece_ids,
                batch.sample_sizes,
                agreement.counts,
                batch.target_weights,
            )
            meter.add(output.nll.detach(), batch.task_ids, batch.target_weights, share.detach())
            if output.router_loss is not None:
                router = output.router_loss * (batch.num_tokens / agreement.tokens)
                meter.add_router(router.detach())
                share = share + router
            accelerator.backward(share * accelerator.num_processes)


def clip_gradients(accelerator: Accelerator, model: nn.Module, max_norm: float | None) -> float:
    """Global gradient norm before clipping; scales the gradients down to ``max_norm``.

    Args:
        accelerator: Knows how the strategy holds its gradients.
        model: The prepared model, its gradients already summed over the ranks.
        max_norm: Upper bound; None measures without clipping.
    """
    bound = math.inf if max_norm is None else max_norm
    return float(accelerator.clip_grad_norm_(model.parameters(), bound))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
