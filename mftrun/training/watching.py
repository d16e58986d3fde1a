"""Where the losses come from that task weights depend on: the probe, or the step before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from mftrun.losses.metrics import TaskSums
from mftrun.training.stopwatch import Stopwatch

if TYPE_CHECKING:
    from torch import nn

    from mftrun.distributed import Ranks
    from mftrun.training.probe import Probe


class Watcher(Protocol):
    """Measures the losses of all tasks before a step, where there is something new."""

    def vector(self, model: nn.Module, step: int) -> torch.Tensor:
        """One rank's part: float64 [2K] on the device, sums of nll and counts; zeros where nothing is new.

        Every rank must call it. Asked twice for the same step it gives the same.

        Args:
            model: The prepared model-with-nll.
            step: Optimizer steps done.
        """

    def is_new(self, step: int) -> bool:
        """Whether there is something new before the step that follows ``step``."""

    def draw(self) -> int:
        """Number of the samples that `vector` was measured on."""

    def taken(self) -> None:
        """What `vector` gave has been observed."""

    def interrupt(self) -> None:
        """The model has been put back to an earlier one: losses before and after are not to be compared."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold. Every rank must call it."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`."""


class ProbeWatcher:
    """Probes every so many steps.

    Args:
        probe: Measures a draw of validation samples.
        interval: Steps from one probe to the next.
        repeats: Probes in a row that take the same draw.
    """

    def __init__(self, probe: Probe, interval: int, repeats: int = 1) -> None:
        self._probe = probe
        self._interval = interval
        self._repeats = repeats
        self._number = 0
        self._stopwatch = Stopwatch(probe.device)

    def vector(self, model: nn.Module, step: int) -> torch.Tensor:
        """See `Watcher`."""
        if not self.is_new(step):
            return self._probe.nothing()
        with self._stopwatch.running():
            return self._probe.sums(model, self.draw())

    def is_new(self, step: int) -> bool:
        """See `Watcher`."""
        return step % self._interval == 0

    def draw(self) -> int:
        """See `Watcher`."""
        return self._number // self._repeats

    def taken(self) -> None:
        """See `Watcher`."""
        self._number += 1

    def interrupt(self) -> None:
        """See `Watcher`: a draw that was begun is not gone on with."""
        self._number += -self._number % self._repeats

    def seconds(self) -> float:
        """Time spent probing since it was last asked. Call it after a synchronisation."""
        return self._stopwatch.lap()

    def state(self) -> dict[str, Any]:
        """See `Watcher`."""
        return {"number": self._number}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Watcher`."""
        self._number = int(state["number"])


class TrainWatcher:
    """Takes the losses of the step before, which cost nothing more.

    Args:
        ranks: The ranks of the run.
        num_tasks: K.
    """

    def __init__(self, ranks: Ranks, num_tasks: int) -> None:
        self._ranks = ranks
        self._num_tasks = num_tasks
        self._sums = TaskSums(num_tasks, ranks.device)
        self._seen = 0
        self._is_pending = False

    def begin(self) -> TaskSums:
        """Starts a step: the sums that its losses are to be added to."""
        self._sums = TaskSums(self._num_tasks, self._ranks.device)
        self._is_pending = True
        return self._sums

    def vector(self, model: nn.Module, step: int) -> torch.Tensor:
        """See `Watcher`."""
        return self._sums.vector()

    def is_new(self, step: int) -> bool:
        """See `Watcher`."""
        return self._is_pending

    def draw(self) -> int:
        """See `Watcher`: every step has samples of its own, and successive steps successive numbers."""
        return self._seen

    def taken(self) -> None:
        """See `Watcher`."""
        self._seen += 1
        self._is_pending = False

    def interrupt(self) -> None:
        """See `Watcher`: what is pending is dropped, and a number is left out."""
        self._sums = TaskSums(self._num_tasks, self._ranks.device)
        self.taken()

    def state(self) -> dict[str, Any]:
        """See `Watcher`. It holds each rank's sums: added up here, they might be rounded otherwise."""
        sums = self._ranks.gather(self._sums.vector().cpu())
        return {"seen": self._seen, "pending": self._is_pending, "sums": sums}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Watcher`. Each rank takes its own sums; of another number of ranks the first takes all."""
        self._seen, self._is_pending = int(state["seen"]), bool(state["pending"])
        self._sums.load_vector(self._own(state["sums"]))

    def _own(self, sums: Sequence[torch.Tensor]) -> torch.Tensor:
        """The part of this rank, float64 [2K], in what so many ranks had."""
        rank: int = self._ranks.index
        if len(sums) == self._ranks.count:
            return sums[rank]
        if not self._ranks.is_main:
            return torch.zeros_like(sums[0])
        return torch.stack(list(sums)).sum(0)
