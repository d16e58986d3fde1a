"""A small world in which task weights are kept up to date, on one rank or several."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from worlds import ROWS, TASKS, Split, engine_of, feed_of, llama, make_samples

from mftrun.data.draws import Draws
from mftrun.distributed import Ranks
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
class Sgd:
    """Plain steps, in which a difference of gradients shows as it is."""

    lr: float = 0.5

    def build(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=self.lr)


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
    engine = engine_of(context.world_size, ModelWithNll(llama()), Sgd())
    ranks = engine.ranks
    objective = Objective(CrossEntropy(), TaskMean(), WEIGHTINGS[name], TASKS)
    feed = feed_of(Split("task_mean", 2), ranks.index, ranks.count)
    balance = Balance(ranks, objective, TASKS, watcher(ranks, objective))
    messages = counted_sums(ranks)
    for step in range(STEPS):
        vector = balance.vector(engine.model, step)
        agreement = agree(ranks, Ballot(*feed.ballot(0, 0), stop=False, save=False), vector)
        balance.observe(step, agreement.watched)
        sums, _ = balance.begin_step(step + 1)
        meter = Meter(ranks, TASKS)
        accumulate(engine, objective, feed.window(0, 0), agreement, meter, sums=sums)
        balance.end_step(step + 1, agreement)
        engine.step(Sgd.lr)
    weights = ranks.gather(objective.task_weights().numpy().tobytes())
    return Found(weights, balance.record(), len(messages))


def watcher(ranks: Ranks, objective: Objective) -> ProbeWatcher | None:
    if objective.watch != "probe":
        return None
    valid = make_samples()
    probe = Probe(ranks, valid, Draws(valid, 20, 0), ROWS["packing"], 64, 1, pad_id=0)
    return ProbeWatcher(probe, 1)


def counted_sums(ranks: Ranks) -> list[int]:
    """Grows by one entry, its size, with every all-reduce that is asked of the ranks."""
    seen: list[int] = []
    plain, in_place = ranks.sum, ranks.sum_in_place
    ranks.sum = lambda tensor: seen.append(tensor.numel()) or plain(tensor)
    ranks.sum_in_place = lambda tensor: seen.append(tensor.numel()) or in_place(tensor)
    return seen
