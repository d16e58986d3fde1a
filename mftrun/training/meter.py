"""What a log line says: exact per-task means over all ranks since the last one, and how fast it went."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mftrun.losses.metrics import TaskSums

if TYPE_CHECKING:
    from mftrun.distributed import Ranks
    from mftrun.training.agreement import Agreement

_SCALARS = 3  # objective, router loss, target tokens


class Meter:
    """Sums since the last record. The losses stay on the device, and on this rank, until they are asked for.

    Args:
        ranks: The ranks of the run.
        tasks: Names, in the order of the task ids.
    """

    def __init__(self, ranks: Ranks, tasks: Sequence[str]) -> None:
        self._ranks = ranks
        self._tasks = list(tasks)
        self.seconds = 0.0
        self._since = time.monotonic()
        self._last: dict[str, float] = {}
        self._reset()

    def add(
        self, nll: torch.Tensor, task_ids: torch.Tensor, target_weights: torch.Tensor, share: torch.Tensor
    ) -> None:
        """Adds one micro-batch, without reading anything back from the device.

        Args:
            nll: [T] detached.
            task_ids: int64 [T].
            target_weights: [T], how many tokens each counts as.
            share: 0-d detached loss share of this micro-batch.
        """
        self._sums.add(nll, task_ids, target_weights)
        self._scalars[0] += share
        self._scalars[2] += nll.shape[0]

    def add_router(self, share: torch.Tensor) -> None:
        """Adds one micro-batch's share of the router loss (models with experts), a 0-d detached tensor."""
        self._has_router = True
        self._scalars[1] += share

    def count(self, agreement: Agreement, **values: float) -> None:
        """Adds what the ranks agreed on for one step, and keeps ``values`` as the newest."""
        self._steps += 1
        self._tokens += agreement.tokens
        self._slots += agreement.slots
        self._last = values

    def record(self, weights: Mapping[str, float], probe_seconds: float | None = None) -> dict[str, Any]:
        """The record of the steps since the last one; starts anew.

        Args:
            weights: Current task weights, by name.
            probe_seconds: Time of these steps that was spent probing; None without a probe.
        """
        self._lap()
        (objective, router, targets), means = self._reduced_means()
        record: dict[str, Any] = {"train/loss": objective / max(self._steps, 1)}
        if self._has_router:
            record["train/router_loss"] = router / max(self._steps, 1)
        record.update({f"train/loss/{name}": mean for name, mean in means.items()})
        record.update({f"weight/{name}": weight for name, weight in weights.items()})
        record.update(self._last)
        if probe_seconds is not None:
            record["probe/share"] = probe_seconds / max(self._lap_seconds, 1e-9)
        record["tokens_per_second"] = self._tokens / max(self._lap_seconds, 1e-9)
        record["target_share"] = targets / max(self._tokens, 1)
        record["padding_share"] = 1 - self._tokens / max(self._slots, 1)
        record["memory_gib"] = _peak_memory() / 2**30
        self._reset()
        return record

    @property
    def pending(self) -> bool:
        """Whether steps have been counted since the last record."""
        return bool(self._steps)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Keeps the time of what is not training (evaluation, saving) out of the speed."""
        self._lap()
        try:
            yield
        finally:
            self._since = time.monotonic()

    def state(self) -> dict[str, Any]:
        """The unfinished sums of all ranks together. Every rank must call it."""
        self._lap()
        return {
            "sums": self._reduced().cpu(),
            "steps": self._steps,
            "tokens": self._tokens,
            "slots": self._slots,
            "lap_seconds": self._lap_seconds,
            "seconds": self.seconds,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from saved sums: the first rank holds them, the others start from zero."""
        self._reset()
        if self._ranks.is_main:
            vector = state["sums"].to(self._ranks.device)
            self._sums.load_vector(vector[:-_SCALARS])
            self._scalars = vector[-_SCALARS:].clone()
        self._steps, self._tokens = state["steps"], state["tokens"]
        self._slots = state["slots"]
        self._lap_seconds, self.seconds = state["lap_seconds"], state["seconds"]

    def _reset(self) -> None:
        device = self._ranks.device
        self._sums = TaskSums(len(self._tasks), device)
        self._scalars = torch.zeros(_SCALARS, dtype=torch.float64, device=device)
        self._has_router = False
        self._steps = self._tokens = self._slots = 0
        self._lap_seconds = 0.0

    def _lap(self) -> None:
        now = time.monotonic()
        self._lap_seconds += now - self._since
        self.seconds += now - self._since
        self._since = now

    def _reduced(self) -> torch.Tensor:
        local = torch.cat([self._sums.vector(), self._scalars])
        total: torch.Tensor = self._ranks.sum(local)
        return total

    def _reduced_means(self) -> tuple[list[float], dict[str, float]]:
        vector = self._reduced().cpu()
        sums = TaskSums(len(self._tasks), torch.device("cpu"))
        sums.load_vector(vector[:-_SCALARS])
        means = {name: mean for name, mean in zip(self._tasks, sums.means(), strict=True) if mean is not None}
        return vector[-_SCALARS:].tolist(), means


def _peak_memory() -> int:
    """Peak bytes of this process: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
