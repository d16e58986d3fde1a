"""Learning-rate schedules as plain functions of the step, so that resuming needs no state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mftrun.errors import ConfigError


@runtime_checkable
class Scheduler(Protocol):
    """A learning rate for every optimizer step."""

    def rate(self, step: int, total: int, peak: float) -> float:
        """Learning rate of one step.

        Args:
            step: Optimizer step, from 1 to ``total``.
            total: Optimizer steps of the whole run.
            peak: The optimizer's ``lr``.
        """


@dataclass(frozen=True)
class Warmup:
    """Linear warm-up from 0, shared by all schedules.

    Args:
        warmup_steps: Length in steps; None takes ``warmup_ratio``.
        warmup_ratio: Length as a share of all steps, in [0, 1].
        min_lr: Learning rate at the last step.

    Raises:
        ConfigError: A negative length, a ratio outside [0, 1], or a negative ``min_lr``.
    """

    warmup_steps: int | None = None
    warmup_ratio: float = 0.03
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise ConfigError("scheduler.warmup_steps", f"must be 0 or more, not {self.warmup_steps}")
        if not 0 <= self.warmup_ratio <= 1:
            raise ConfigError("scheduler.warmup_ratio", f"must lie in [0, 1], not {self.warmup_ratio}")
        if self.min_lr < 0:
            raise ConfigError("scheduler.min_lr", f"must be 0 or more, not {self.min_lr}")

    def rate(self, step: int, total: int, peak: float) -> float:
        """Learning rate of step ``step`` of ``total``: warm-up to ``peak``, then down to ``min_lr``."""
        warmup = self.warmup_steps if self.warmup_steps is not None else math.ceil(self.warmup_ratio * total)
        if step < warmup:
            return peak * step / warmup
        done = (step - warmup) / max(total - warmup, 1)
        return self.min_lr + (peak - self.min_lr) * self._remaining(min(done, 1.0))

    def _remaining(self, done: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True)
class Cosine(Warmup):
    """Half a cosine from the peak to ``min_lr`` (arXiv 1608.03983, without restarts)."""

    def _remaining(self, done: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Linear(Warmup):
    """A straight line from the peak to ``min_lr``."""

    def _remaining(self, done: float) -> float:
        return 1 - done


@dataclass(frozen=True)
class Constant(Warmup):
    """The peak to the end, after the warm-up. ``min_lr`` must stay 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_lr:
            raise ConfigError(
                "scheduler.min_lr", "a constant schedule never falls; use scheduler=cosine or linear"
            )

    def _remaining(self, done: float) -> float:
        return 1.0
