"""Keeps the task weights up to date: brings losses to the objective before each step, and tells the log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mftrun.errors import MftrunError
from mftrun.losses.metrics import TaskSums
from mftrun.training.watching import ProbeWatcher, TrainWatcher, Watcher

if TYPE_CHECKING:
    from torch import nn

    from mftrun.distributed import Ranks
    from mftrun.losses.objective import Objective
    from mftrun.training.agreement import Agreement
    from mftrun.training.gradient_norms import TaskGradients


class Balance:
    """The losses that task weights depend on: measured, handed to the objective, logged and checkpointed.

    Args:
        ranks: The ranks of the run.
        objective: Takes the losses.
        tasks: Names, in the order of the task ids.
        probe: Probes the validation data; None where nobody wants that.
        gradients: Measures gradients of tasks; None where the weighting does not need them.
    """

    def __init__(
        self,
        ranks: Ranks,
        objective: Objective,
        tasks: Sequence[str],
        probe: ProbeWatcher | None = None,
        gradients: TaskGradients | None = None,
    ) -> None:
        self._ranks = ranks
        self._objective = objective
        self._tasks = list(tasks)
        self._train = TrainWatcher(ranks, len(self._tasks)) if objective.watch == "train" else None
        self._probe = probe
        found: dict[str, Watcher | None] = {"probe": probe, "train": self._train}
        self._watchers = {name: watcher for name, watcher in found.items() if watcher is not None}
        self._gradients = gradients
        self._norms: torch.Tensor | None = None
        self._latest: dict[str, dict[str, float]] = {}

    def vector(self, model: nn.Module, step: int) -> torch.Tensor:
        """What this rank adds to the all-reduce before the step that follows ``step``.

        Every rank must call it: it may probe.

        Returns:
            float64 [2K * watchers] on the device.
        """
        parts = [watcher.vector(model, step) for watcher in self._watchers.values()]
        return torch.cat([torch.zeros(0, dtype=torch.float64, device=self._ranks.device), *parts])

    def observe(self, step: int, totals: torch.Tensor) -> None:
        """Hands what is new to the objective.

        Args:
            step: Optimizer steps done.
            totals: float64 on the CPU, the sums of all ranks' `vector`.

        Raises:
            MftrunError: A loss is not finite.
        """
        width = 2 * len(self._tasks)
        for index, (name, watcher) in enumerate(self._watchers.items()):
            if watcher.is_new(step):
                losses = _means(totals[index * width : (index + 1) * width])
                if name == self._objective.watch:
                    self._refuse_non_finite(losses, step)
                    self._objective.observe(step, losses, watcher.draw(), self._norms)
                watcher.taken()
                self._latest[name] = _known(dict(zip(self._tasks, losses.tolist(), strict=True)))

    def interrupt(self) -> None:
        """Tells that the model has been put back to an earlier one, of which nothing was measured yet."""
        self._norms = None
        for watcher in self._watchers.values():
            watcher.interrupt()

    def begin_step(self, step: int) -> tuple[TaskSums | None, TaskGradients | None]:
        """What the micro-batches of a step must fill.

        Args:
            step: Number of the step, from 1.

        Returns:
            Sums of losses and of gradients; None where nobody needs them.
        """
        sums = self._train.begin() if self._train is not None else None
        gradients = self._gradients if self._observes_after(step) else None
        if gradients is not None:
            gradients.begin()
        return sums, gradients

    def end_step(self, step: int, agreement: Agreement) -> None:
        """Takes what the micro-batches have filled. Every rank must call it."""
        if self._gradients is not None and self._observes_after(step):
            present = torch.tensor(agreement.targets) > 0
            scale = float(self._objective.task_weights()[present].sum())
            self._norms = self._gradients.norms(self._ranks, scale, present)
            self._gradients.end()

    def probe_seconds(self) -> float | None:
        """Time spent probing since it was last asked, after a synchronisation; None without a probe."""
        return None if self._probe is None else self._probe.seconds()

    def record(self) -> dict[str, float]:
        """The newest probe losses, and what the weights were computed from."""
        probed = {f"probe/loss/{task}": loss for task, loss in self._latest.get("probe", {}).items()}
        return {**probed, **_known(_named(self._objective.diagnostics(), self._tasks))}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold, of the objective, too. Every rank must call it."""
        watchers = {name: watcher.state() for name, watcher in self._watchers.items()}
        own = {"watchers": watchers, "norms": self._norms, "latest": dict(self._latest)}
        return {"objective": self._objective.state_dict(), **own}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`; what it says of watchers that are no longer there is left."""
        self._objective.load_state_dict(state["objective"])
        for name, watcher in self._watchers.items():
            if name in state["watchers"]:
                watcher.load_state(state["watchers"][name])
        self._norms, self._latest = state["norms"], dict(state["latest"])

    def _observes_after(self, step: int) -> bool:
        """Whether the weighting will be given losses once this step is done."""
        watcher = self._watchers.get(self._objective.watch or "")
        return watcher is not None and (watcher is self._train or watcher.is_new(step))

    def _refuse_non_finite(self, losses: torch.Tensor, step: int) -> None:
        faulty = self._objective.active & losses.isinf()
        if faulty.any():
            names = [task for task, bad in zip(self._tasks, faulty.tolist(), strict=True) if bad]
            raise MftrunError(_not_finite(self._objective.watch or "", names, step))


def _means(vector: torch.Tensor) -> torch.Tensor:
    """Mean of each task, float64 [K]; nan for an absent task, inf for a loss that is not finite.

    Args:
        vector: float64 [2K] on the CPU, of `TaskSums`.
    """
    sums, counts = vector.view(2, -1)
    means: torch.Tensor = (sums / counts).nan_to_num(nan=math.inf, posinf=math.inf, neginf=math.inf)
    return means.masked_fill(counts == 0, math.nan)


def _named(diagnostics: Mapping[str, torch.Tensor], tasks: Sequence[str]) -> dict[str, float]:
    """One entry ``balance/NAME`` for each number, ``balance/NAME/TASK`` for each of a task."""
    named: dict[str, float] = {}
    for name, value in diagnostics.items():
        if value.ndim == 0:
            named[f"balance/{name}"] = float(value)
        else:
            named.update(zip((f"balance/{name}/{task}" for task in tasks), value.tolist(), strict=True))
    return named


def _known(values: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in values.items() if math.isfinite(value)}


def _not_finite(name: str, tasks: Sequence[str], step: int) -> str:
    return (
        f"step {step + 1}: the {name} loss of {', '.join(tasks)} is not finite, so there are no task weights "
        "to go on with. Lower optimizer.lr or train.max_grad_norm, or look at the samples of these tasks."
    )
