"""Where a run stands: everything of the loop that a checkpoint must bring back, as plain JSON."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mftrun.data.plan import Freeze


@dataclass
class Lowest:
    """The lowest validation loss of some steps.

    Attributes:
        value: Lowest so far, in nats; None before the first evaluation.
        step: Step of ``value``; or that of the checkpoint that stands in for it, see
            :meth:`Progress.rewind_patience`.
        kept_step: Step of the newest lowest that a checkpoint was saved of.
    """

    value: float | None = None
    step: int | None = None
    kept_step: int | None = None

    def lower(self, value: float, step: int) -> bool:
        """Takes in one loss and says whether it is the lowest so far; one that is not finite never is."""
        if not math.isfinite(value) or (self.value is not None and value >= self.value):
            return False
        self.value, self.step = value, step
        return True


@dataclass
class Best(Lowest):
    """How a validation loss has developed, and the lowest of all steps, those given up included.

    Attributes:
        reference: Loss that the next one must beat by ``min_delta`` to count as better.
        stale: Evaluations since the last that counted as better.
        line: The lowest of the steps that led to the model as it is. A rollback takes it back with the model;
            without one it is the lowest of all steps.
    """

    reference: float | None = None
    stale: int = 0
    line: Lowest = field(default_factory=Lowest)

    def take(self, value: float, step: int, min_delta: float) -> bool:
        """Takes in the loss of one evaluation and says whether it is the lowest, of all steps or of the line.

        A loss that is not finite counts as one that is no better.
        """
        finite = math.isfinite(value)
        if finite and (self.reference is None or value < self.reference - min_delta):
            self.reference, self.stale = value, 0
        else:
            self.stale += 1
        lowest = self.lower(value, step), self.line.lower(value, step)
        return any(lowest)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Best:
        """The inverse of :func:`dataclasses.asdict`."""
        return cls(**{**values, "line": Lowest(**values["line"])})


@dataclass(frozen=True)
class Frozen:
    """Since when a task is no longer trained.

    Attributes:
        step: Optimizer steps done by then.
        epoch: Epoch of the next global batch then.
        batch: That global batch, the first without the task.
    """

    step: int
    epoch: int
    batch: int


@dataclass
class Progress:
    """The loop's position and memory.

    Attributes:
        step: Optimizer steps done.
        epoch: Epoch of the next global batch, from 0.
        batch: Global batches of that epoch already trained on.
        tokens: Non-padding tokens seen by all ranks.
        targets: Target tokens seen, per task, by their weight.
        samples: Samples with targets seen, per task.
        seconds: Time spent training so far, in all sessions.
        overall: The watched validation loss; of a watched score, what it lacks to 1.
        tasks: The validation loss of each task, where tasks are stopped one by one. Of a frozen task only the
            lowest goes on.
        frozen: The tasks that are no longer trained, in the order in which they were frozen.
        rollback: Step of the checkpoint that model and optimizer go back to before the next step; usually
            None. A checkpoint that is saved in between holds what was there before.
        rolled_back_at: The step after which they last went back; None if they never did. From then on the
            model is not the one that was evaluated at that step.
        evaluated_at: Step of the newest evaluation, -1 before the first.
        scored_at: Step of the newest scores on benchmarks, -1 before the first.
        pruned: Step at which the run ended, as others of its sweep do better; None if it did not.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    tokens: int = 0
    targets: dict[str, float] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    overall: Best = field(default_factory=Best)
    tasks: dict[str, Best] = field(default_factory=dict)
    frozen: dict[str, Frozen] = field(default_factory=dict)
    rollback: int | None = None
    rolled_back_at: int | None = None
    evaluated_at: int = -1
    scored_at: int = -1
    pruned: int | None = None

    def freeze(self, tasks: Iterable[str]) -> None:
        """Notes that tasks are not trained from the next global batch on; of one that is frozen, nothing."""
        for task in tasks:
            self.frozen.setdefault(task, Frozen(self.step, self.epoch, self.batch))

    def freezes(self, tasks: Sequence[str]) -> list[Freeze]:
        """The frozen tasks as the feed takes them.

        Args:
            tasks: All task names, in the order of their numbers.
        """
        return [Freeze(tasks.index(task), frozen.epoch, frozen.batch) for task, frozen in self.frozen.items()]

    def rewind_patience(self, stored: Progress) -> None:
        """Gives the tasks still trained, and the run, the patience and the line they had at an earlier place.

        Their lowest losses of all steps stay, and so do the checkpoints of them. Where the checkpoint of the
        line's lowest is no longer kept, as a lower one had come after it, that place stands in for it.

        Args:
            stored: The progress at that place, whose model is trained on now.
        """
        kept = self.kept_steps
        _rewind(self.overall, stored.overall, stored.step, kept)
        for task, best in self.tasks.items():
            if task not in self.frozen:
                _rewind(best, stored.tasks.get(task, Best()), stored.step, kept)
        self.rolled_back_at = self.step

    @property
    def kept_steps(self) -> set[int]:
        """Steps of the checkpoints of the lowest losses of all steps and of the line: overall, per task."""
        return {lowest.kept_step for lowest in self._lowests() if lowest.kept_step is not None}

    def note_kept(self, step: int | None = None) -> None:
        """Notes that there is a checkpoint of a step, of which some loss may be the lowest.

        Not once the model has gone back at that step: the checkpoint then holds another than was evaluated.

        Args:
            step: One before, if nothing was evaluated since; None is this one.
        """
        step = self.step if step is None else step
        if step == self.rolled_back_at:
            return
        for lowest in self._lowests():
            if lowest.step == step:
                lowest.kept_step = step

    def once_kept(self) -> Progress:
        """A copy that says what this one will once its checkpoint is saved."""
        noted = deepcopy(self)
        noted.note_kept()
        return noted

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """The inverse of :meth:`to_dict`."""
        nested = {
            "overall": Best.from_dict(values["overall"]),
            "tasks": {task: Best.from_dict(best) for task, best in values["tasks"].items()},
            "frozen": {task: Frozen(**place) for task, place in values["frozen"].items()},
        }
        return cls(**{**values, **nested})

    def _lowests(self) -> Iterator[Lowest]:
        for best in (self.overall, *self.tasks.values()):
            yield best
            yield best.line


def _rewind(best: Best, earlier: Best, back_to: int, kept: Collection[int]) -> None:
    best.reference, best.stale, best.line = earlier.reference, earlier.stale, replace(earlier.line)
    if best.line.step is not None:
        best.line.step = best.line.kept_step = best.line.step if best.line.step in kept else back_to
