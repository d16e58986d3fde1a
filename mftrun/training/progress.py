"""Where a run stands: everything of the loop that a checkpoint must bring back, as plain JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

from mftrun.data.plan import Freeze


@dataclass
class Best:
    """How a validation loss has developed.

    Attributes:
        value: Lowest so far, in nats; None before the first evaluation.
        step: Step of ``value``.
        kept_step: Step of the newest lowest that a checkpoint was saved of.
        reference: Loss that the next one must beat by ``min_delta`` to count as better.
        stale: Evaluations since the last that counted as better.
    """

    value: float | None = None
    step: int | None = None
    kept_step: int | None = None
    reference: float | None = None
    stale: int = 0

    def take(self, value: float, step: int, min_delta: float) -> bool:
        """Takes in the loss of one evaluation and says whether it is the lowest so far.

        A loss that is not finite counts as one that is no better.
        """
        finite = math.isfinite(value)
        if finite and (self.reference is None or value < self.reference - min_delta):
            self.reference, self.stale = value, 0
        else:
            self.stale += 1
        lowest = finite and (self.value is None or value < self.value)
        if lowest:
            self.value, self.step = value, step
        return lowest


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
        overall: The watched validation loss.
        tasks: The validation loss of each task, where tasks are stopped one by one; as it was when the task
            was frozen.
        frozen: The tasks that are no longer trained, in the order in which they were frozen.
        rollback: Step of the checkpoint that model and optimizer go back to before the next step; usually
            None. A checkpoint that is saved in between holds what was there before.
        evaluated_at: Step of the newest evaluation, -1 before the first.
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
    evaluated_at: int = -1

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
        """Gives the tasks still trained, and the run, the patience they had at an earlier place.

        Their lowest losses stay, and so do the checkpoints of them.

        Args:
            stored: The progress at that place, whose model is trained on now.
        """
        _rewind(self.overall, stored.overall)
        for task, best in self.tasks.items():
            if task not in self.frozen:
                _rewind(best, stored.tasks.get(task, Best()))

    @property
    def kept_steps(self) -> set[int]:
        """Steps of the checkpoints of the lowest losses: overall and of every task."""
        return {best.kept_step for best in self._bests() if best.kept_step is not None}

    def note_kept(self) -> None:
        """Notes that there is a checkpoint of this step, of which some loss may be the lowest."""
        for best in self._bests():
            if best.step == self.step:
                best.kept_step = self.step

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
            "overall": Best(**values["overall"]),
            "tasks": {task: Best(**best) for task, best in values["tasks"].items()},
            "frozen": {task: Frozen(**place) for task, place in values["frozen"].items()},
        }
        return cls(**{**values, **nested})

    def _bests(self) -> Iterator[Best]:
        yield self.overall
        yield from self.tasks.values()


def _rewind(best: Best, earlier: Best) -> None:
    best.reference, best.stale = earlier.reference, earlier.stale
