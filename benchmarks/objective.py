"""Time what balancing costs: `python benchmarks/objective.py`.

Prints the peak memory of training steps (forward, backward, AdamW on a Llama of 20 million parameters on a
GPU, of 1.2 million on a CPU) with every loss, and their time, as a multiple of the same step with the plain
token mean; then the time of the objective and of the weighting alone against the number of tasks.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from collating import MAX_LENGTH, VOCABULARY, llama
from packing import MemorySamples, make_samples, real_like

from mftrun.build import build
from mftrun.compose import compose
from mftrun.data.draws import Draws
from mftrun.data.epochs import SameSamples
from mftrun.data.mixture import Proportional
from mftrun.data.plan import Planner
from mftrun.data.rows import Packing
from mftrun.distributed import Engine, Ranks, Single
from mftrun.losses.counts import Counts
from mftrun.losses.objective import Objective
from mftrun.models.with_nll import ModelWithNll
from mftrun.training.agreement import Ballot, agree
from mftrun.training.balance import Balance
from mftrun.training.feed import Feed
from mftrun.training.gradient_norms import TaskGradients
from mftrun.training.meter import Meter
from mftrun.training.optimizers import AdamW
from mftrun.training.probe import Probe
from mftrun.training.step import accumulate
from mftrun.training.watching import ProbeWatcher

ROWS_PER_STEP, MICRO_BATCH = 16, 4
ROUNDS = 16
RATE = 1e-3
PRECISION = "bf16" if torch.cuda.is_available() else "fp32"
PLAIN = "loss=token_mean"
TASKS = (2, 4, 16, 64, 256)
LOSSES = (
    ("loss=mft", None),
    ("loss=coba", 1),
    ("loss=coba", 10),
    ("loss=self_paced", 1),
    ("loss=self_paced", 10),
    ("loss=focal", None),
    ("loss=focal loss.token_loss.level=task", None),
    ("loss=gradnorm loss.weighting.watch=train", None),
)


def objective(overrides: str, tasks: list[str]) -> Objective:
    """The objective that a command line would compose."""
    made: Objective = build(compose(overrides.split())["loss"], Objective, "loss", tasks=tasks)
    return made


@dataclass
class Trainee:
    """One model in training, with one loss.

    Attributes:
        name: Of the loss.
        objective: The loss.
        balance: What it watches.
        engine: Holds the model-with-nll and AdamW.
        meter: Sums for the log.
        steps: Steps done.
    """

    name: str
    objective: Objective
    balance: Balance
    engine: Engine
    meter: Meter
    steps: int = 0

    def step(self, feed: Feed) -> float:
        """Takes one step and returns its seconds."""
        start = time.perf_counter()
        vector = self.balance.vector(self.engine.model, self.steps)
        batch = self.steps % 20
        agreement = agree(self.engine.ranks, Ballot(*feed.ballot(0, batch), stop=False, save=False), vector)
        self.balance.observe(self.steps, agreement.watched)
        sums, gradients = self.balance.begin_step(self.steps + 1)
        window = feed.window(0, batch)
        accumulate(self.engine, self.objective, window, agreement, self.meter, sums, gradients)
        self.balance.end_step(self.steps + 1, agreement)
        self.engine.step(RATE)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.steps += 1
        return time.perf_counter() - start


def small_llama() -> torch.nn.Module:
    """A Llama of 1.2 million parameters: the smaller the model, the more does all else weigh."""
    return llama(hidden=64, intermediate=176, layers=4, heads=4)


def trainee(ranks: Ranks, name: str, interval: int | None, valid: MemorySamples) -> Trainee:
    """A fresh model with a loss that probes every ``interval`` steps."""
    tasks = list(valid.tasks)
    loss = objective(name, tasks)
    torch.manual_seed(0)
    model = ModelWithNll(llama() if torch.cuda.is_available() else small_llama())
    engine = Single().engine(ranks, model, AdamW(lr=RATE), precision=PRECISION, max_grad_norm=None)
    watcher = None
    if interval is not None:
        probe = Probe(ranks, valid, Draws(valid, 1024, 0), Packing(), MAX_LENGTH, MICRO_BATCH, 0)
        watcher = ProbeWatcher(probe, interval, loss.draw_repeats)
    gradients = TaskGradients(engine.bare, len(tasks)) if loss.needs_gradient_norms else None
    balance = Balance(ranks, loss, tasks, watcher, gradients)
    return Trainee(_shown(name, interval), loss, balance, engine, Meter(ranks, tasks))


def _world() -> tuple[Ranks, Feed, MemorySamples]:
    """Training and validation samples of six tasks, dealt to one rank."""
    ranks = Single().join(PRECISION)
    rng = np.random.default_rng(0)
    train = make_samples(rng, real_like(rng, 5000, MAX_LENGTH), VOCABULARY)
    valid = make_samples(rng, real_like(rng, 300, MAX_LENGTH), VOCABULARY)
    planner = Planner(train.lengths, train.task, Proportional(), Packing(), 0, ROWS_PER_STEP, MAX_LENGTH)
    epochs = SameSamples(train, planner)
    feed = Feed(epochs, 10**6, rank=0, world_size=1, micro_batch_size=MICRO_BATCH, pad_id=0)
    return ranks, feed, valid


def _shown(name: str, interval: int | None) -> str:
    return name if interval is None else f"{name} probe.interval={interval}"


def steps() -> None:
    """Print the table of steps. Each takes turns with the plain loss, so that a busy moment hits both."""
    ranks, feed, valid = _world()
    print(f"\n{'the same steps':<58}{'seconds':>9}{'ratio':>8}")
    plain = trainee(ranks, PLAIN, None, valid)
    plain.step(feed)
    for name, interval in LOSSES:
        other = trainee(ranks, name, interval, valid)
        other.step(feed)  # what is only done once
        rounds = max(ROUNDS, 4 * (interval or 1))
        pairs = [(plain.step(feed), other.step(feed)) for _ in range(rounds)]
        # A probe now and then shows in the mean only; medians of groups of rounds keep outliers out.
        size = interval or 1
        groups = [pairs[start : start + size] for start in range(0, rounds - size + 1, size)]
        ratios = [sum(b for _, b in group) / sum(a for a, _ in group) for group in groups]
        seconds = statistics.median(b for _, b in pairs)
        print(f"{other.name:<58}{seconds:>9.3f}{statistics.median(ratios):>8.3f}", flush=True)
        del other


def _peak_memory(name: str, interval: int | None) -> float:
    """MB of a process that has taken a few steps: of the GPU where there is one, else resident."""
    ranks, feed, valid = _world()
    made = trainee(ranks, name, interval, valid)
    for _ in range(3):
        made.step(feed)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def memory() -> None:
    """Print the peak memory of a few steps with each loss, each in a process of its own."""
    print(f"{'peak memory of steps of 16 packed rows of 1,024, 6 tasks':<58}{'MB':>9}")
    for name, interval in ((PLAIN, None), *LOSSES):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peak = pool.submit(_peak_memory, name, interval).result()
        print(f"{_shown(name, interval):<58}{peak:>9.0f}", flush=True)


def tasks() -> None:
    """Print the time of the objective alone, and of one observation, against the number of tasks."""
    print(f"\n{'milliseconds with 16,384 targets; K tasks':<58}" + "".join(f"{count:>8}" for count in TASKS))
    for name in ("loss=token_mean", "loss=mft", "loss=task_sample_mean", "loss=focal"):
        times = [1e3 * _loss_seconds(name, count) for count in TASKS]
        print(f"{name + ', loss and its backward':<58}" + "".join(f"{time:>8.2f}" for time in times))
    for name in ("self_paced", "coba", "famo", "lbtw", "dwa", "uncertainty", "dro"):
        times = [1e3 * _observe_seconds(f"loss={name}", count) for count in TASKS]
        print(f"{f'loss={name}, one observation':<58}" + "".join(f"{time:>8.2f}" for time in times))


def _loss_seconds(name: str, count: int) -> float:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    made = objective(name, [f"task{k}" for k in range(count)])
    rng = torch.Generator().manual_seed(0)
    task_ids = torch.randint(count, (16384,), generator=rng)
    nll = torch.rand(16384, generator=rng).to(device).requires_grad_()
    counts = Counts(task_ids.bincount(minlength=count).double(), torch.full((count,), 8.0).double()).to(
        device
    )
    sizes = counts.tokens[task_ids.to(device)] / 8
    pieces = (torch.arange(16384) // 64).to(device)

    def work() -> None:
        made.loss(nll, task_ids.to(device), pieces, sizes, counts).backward()  # type: ignore[no-untyped-call]
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return _best(work)


def _observe_seconds(name: str, count: int) -> float:
    made = objective(name, [f"task{k}" for k in range(count)])
    losses = iter(2 + torch.rand(10_000, count, dtype=torch.float64))
    numbers = iter(range(10_000))

    def work() -> None:
        number = next(numbers)
        made.observe(number, next(losses), number // 50)

    for _ in range(200):  # past the warm-up, with a full window
        work()
    return _best(work)


def _best(work: Callable[[], None], repeats: int = 50) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print the tables."""
    memory()  # first: Linux tells a process started from this one at least the peak that this one had
    steps()
    tasks()


if __name__ == "__main__":
    main()
