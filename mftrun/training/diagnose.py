"""Finding what made a step non-finite: the task, the files and the samples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mftrun.errors import MftrunError

if TYPE_CHECKING:
    from mftrun.data.batch import Batch
    from mftrun.distributed import Engine
    from mftrun.training.feed import Feed

SHOWN = 10


class NonFiniteError(MftrunError):
    """A loss or a gradient was infinite or not a number."""


def explain_non_finite(
    engine: Engine,
    window: Iterable[Batch],
    feed: Feed,
    step: int,
    checkpoint: Path | None,
) -> NonFiniteError:
    """Runs the window again, one micro-batch at a time, and names what is not finite.

    Every rank must call it; all get the same error.

    Args:
        engine: Holds the model, its weights still those before the step.
        window: This rank's micro-batches.
        feed: Knows where samples come from.
        step: The step that failed.
        checkpoint: The newest whole checkpoint, to go back to.
    """
    kinds: list[str] = []
    samples: list[int] = []
    for batch in window:
        kind, found = _faults(engine, batch)
        kinds += [kind] if found else []
        samples += found
    everything = engine.ranks.gather((kinds, [feed.describe(sample) for sample in samples]))
    return NonFiniteError(_message(everything, step, checkpoint))


def _faults(engine: Engine, batch: Batch) -> tuple[str, list[int]]:
    """What is wrong with one micro-batch, and the samples of this rank that may be to blame.

    Ranks that share a model go on in step: where one finds a fault in its losses, none makes a backward pass.
    """
    batch = batch.to(engine.ranks.device)
    with engine.micro_step(is_last=True):
        nll = engine.model(batch.input_ids, batch.position_ids, batch.predict_from, batch.target_ids).nll
        bad = ~torch.isfinite(nll.detach())
        if engine.ranks.sum(bad.any().double()) > 0:
            return "loss", torch.unique(batch.sample_ids[bad]).tolist()
        engine.backward(nll.sum())
    # At a rate of 0 no weight changes.
    finite = engine.step(0.0) < float("inf")
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
