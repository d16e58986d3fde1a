"""A small world in which task weights are kept up to date, on one rank or several."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate.utils import gather_object
from worlds import ROWS, TASKS, Split, feed_of, llama, make_samples

from mftrun.data.draws import Draws
from mftrun.distributed import Ddp
from mftrun.losses.normalizations import TaskMean
from mftrun.losses.objective import Objective
from mftrun.losses.token_losses import CrossEntropy
from mftrun.losses.weightings import Coba, Static, Weighting
from mftrun.models.with_nll import ModelWithNll
from mftrun.training.agreement import Ballot, agree
from mftrun.training.balance import Balance
from mftrun.training.meter import Meter
from mftrun.training.probe import Probe
from mftrun.training.step import accumulate
from mftrun.training.watching import ProbeWatcher

STEPS = 6
WEIGHTINGS: dict[str, Weighting] = {
    "static": Static(),
    "coba": Coba(warmup=2, window=4),
    "coba on train": Coba(warmup=2, window=4, watch="train"),
}


@dataclass(frozen=True)
class Found:
    """What a few steps left.

    Attributes:
        weights: Of each rank after the last step, as bytes.
        logged: What rank 0 would log of them.
        messages: All-reduces of rank 0, without those of gradients.
    """

    weights: list[bytes]
    logged: dict[str, float]
    messages: int


def balanced(context, name: str) -> Found:
    """A few steps on the same global batch with a weighting."""
    accelerator = Ddp(num_processes=context.world_size).accelerator("fp32")
    objective = Objective(CrossEntropy(), TaskMean(), WEIGHTINGS[name], TASKS)
    feed = feed_of(Split("task_mean", 2), accelerator.process_index, accelerator.num_processes)
    bare = ModelWithNll(llama())
    model, optimizer = accelerator.prepare(bare, torch.optim.SGD(bare.parameters(), lr=0.5))
    balance = Balance(accelerator, objective, TASKS, watcher(accelerator, objective))
    messages = counted_reduces(accelerator)
    for step in range(STEPS):
        vector = balance.vector(model, step)
        agreement = agree(accelerator, Ballot(*feed.ballot(0, 0), stop=False, save=False), vector)
        balance.observe(step, agreement.watched)
        sums, _ = balance.begin_step(step + 1)
        meter = Meter(accelerator, TASKS)
        accumulate(accelerator, model, objective, feed.window(0, 0), agreement, meter, sums=sums)
        balance.end_step(step + 1, agreement)
        optimizer.step()
        optimizer.zero_grad()
    weights = gather_object([objective.task_weights().numpy().tobytes()])
    return Found(weights, balance.record(), len(messages))


def watcher(accelerator, objective: Objective) -> ProbeWatcher | None:
    if objective.watch != "probe":
        return None
    valid = make_samples()
    probe = Probe(accelerator, valid, Draws(valid, 20, 0), ROWS["packing"], 64, 1, pad_id=0)
    return ProbeWatcher(probe, 1)


def counted_reduces(accelerator) -> list[str]:
    """Grows by one entry with every all-reduce that is asked of the accelerator."""
    seen: list[str] = []
    reduce = accelerator.reduce

    def counted(tensor, reduction="sum"):
        seen.append(reduction)
        return reduce(tensor, reduction=reduction)

    accelerator.reduce = counted
    return seen
