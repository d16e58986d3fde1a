"""Finding what made a step non-finite: the task, the files and the samples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object

from mftrun.errors import MftrunError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from mftrun.data.batch import Batch
    from mftrun.training.feed import Feed

SHOWN = 10


class NonFiniteError(MftrunError):
    """A loss or a gradient was infinite or not a number."""


def explain_non_finite(
    accelerator: Accelerator,
    model: nn.Module,
    window: Iterable[Batch],
    feed: Feed,
    step: int,
    checkpoint: Path | None,
) -> NonFiniteError:
    """Runs the window again, one micro-batch at a time, and names what is not finite.

    Every rank must call it; all get the same error.

    Args:
        accelerator: Joins the ranks.
        model: The prepared model, its weights still those before the step.
        window: This rank's micro-batches.
        feed: Knows where samples come from.
        step: The step that failed.
        checkpoint: The newest whole checkpoint, to go back to.
    """
    bare = accelerator.unwrap_model(model)
    kinds: list[str] = []
    samples: list[int] = []
    for batch in window:
        kind, found = _faults(accelerator, bare, batch)
        kinds += [kind] if found else []
        samples += found
    everything = gather_object([(kinds, [feed.describe(sample) for sample in samples])])
    return NonFiniteError(_message(everything, step, checkpoint))


def _faults(accelerator: Accelerator, model: nn.Module, batch: Batch) -> tuple[str, list[int]]:
    batch = batch.to(accelerator.device)
    model.zero_grad()
    with accelerator.autocast():
        nll = model(batch.input_ids, batch.position_ids, batch.predict_from, batch.target_ids).nll
    bad = ~torch.isfinite(nll.detach())
    if bad.any():
        return "loss", torch.unique(batch.sample_ids[bad]).tolist()
    nll.sum().backward()
    gradients = (p.grad for p in model.parameters() if p.grad is not None)
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    model.zero_grad()
    return "gradient", [] if finite else torch.unique(batch.sample_ids).tolist()


def _message(
    everything: list[tuple[list[str], list[tuple[str, str]]]], step: int, checkpoint: Path | None
) -> str:
    kinds = sorted({kind for found, _ in everything for kind in found}) or ["gradient"]
    places = [place for _, found in everything for place in found]
    tasks = sorted({task for task, _ in places})
    lines = "".join(f"\n  {task}: {where}" for task, where in places[:SHOWN])
    more = f"\n  and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    culprit = (
        f"task {', '.join(tasks)}; samples:{lines}{more}"
        if places
        else "each micro-batch alone is finite; their sum overflowed"
    )
    back = f"the newest checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint yet"
    return (
        f"step {step}: the {' and '.join(kinds)} is not finite: {culprit}\n"
        f"No weight was changed by this step; {back}. "
        "Look at these samples, or lower optimizer.lr or train.max_grad_norm."
    )
