"""Where a run stands: everything of the loop that a checkpoint must bring back, as plain JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


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
        best_value: Lowest watched validation loss so far, None before the first evaluation.
        best_step: Step of ``best_value``.
        kept_best_step: Step of the newest best that a checkpoint was saved of.
        reference: Loss that the next one must beat by ``min_delta`` to count as better.
        stale: Evaluations since the last that counted as better.
        evaluated_at: Step of the newest evaluation, -1 before the first.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    tokens: int = 0
    targets: dict[str, float] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    best_value: float | None = None
    best_step: int | None = None
    kept_best_step: int | None = None
    reference: float | None = None
    stale: int = 0
    evaluated_at: int = -1

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """The inverse of :meth:`to_dict`."""
        return cls(**values)
