"""What is remembered of the past: the newest numbers of each task, and the slope of their course."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Recent:
    """The newest numbers of each task, at most `window` of them. Tasks need not come together.

    Args:
        window: Numbers kept of each task, W.
        num_tasks: K.
    """

    def __init__(self, window: int, num_tasks: int) -> None:
        self._values = torch.full((window, num_tasks), torch.nan, dtype=torch.float64)
        self._seen = torch.zeros(num_tasks, dtype=torch.int64)

    @property
    def values(self) -> Tensor:
        """float64 [W, K], each column in an order of its own; nan where nothing is held yet."""
        return self._values

    @property
    def seen(self) -> Tensor:
        """int64 [K], how many numbers each task had so far, also those no longer held."""
        return self._seen

    def add(self, values: Tensor, present: Tensor) -> None:
        """Takes one number of each task that is present, in place of its oldest one.

        Args:
            values: float64 [K], finite where `present`.
            present: bool [K].
        """
        slots = (self._seen % len(self._values))[None]
        self._values.scatter_(0, slots, torch.where(present, values, self._values.gather(0, slots)[0])[None])
        self._seen = self._seen + present

    def newest(self, count: int, skip: int = 0) -> Tensor:
        """The newest numbers of each task, without the `skip` very newest.

        Args:
            count: How many; `count + skip` is at most W.
            skip: How many to leave out.

        Returns:
            float64 [count, K], newest first; nan where a task has had fewer.
        """
        return self._values.gather(0, self._slots(count, skip, len(self._values)))

    def state_dict(self) -> dict[str, Tensor]:
        """All numbers held, as they lie in memory, and how many there were."""
        return {"values": self._values, "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state_dict`; of a larger window, the newest numbers are kept."""
        values, self._seen = state["values"], state["seen"]
        if len(values) == len(self._values):
            self._values = values
            return
        kept = min(len(values), len(self._values))
        newest = values.gather(0, self._slots(kept, 0, len(values)))
        self._values = torch.full_like(self._values, torch.nan)
        self._values.scatter_(0, self._slots(kept, 0, len(self._values)), newest)

    def _slots(self, count: int, skip: int, window: int) -> Tensor:
        """Places of the newest numbers in a memory of `window` of them, int64 [count, K]."""
        ages = torch.arange(skip, skip + count)[:, None]
        return (self._seen - 1 - ages) % window


class History:
    """The newest points (step, value) of each task, at most `window` of them, and the slope through them.

    Args:
        window: Points kept of each task.
        num_tasks: K.
    """

    def __init__(self, window: int, num_tasks: int) -> None:
        self._steps, self._values = Recent(window, num_tasks), Recent(window, num_tasks)

    @property
    def seen(self) -> Tensor:
        """int64 [K], how many points each task had so far, also those no longer held."""
        return self._values.seen

    def add(self, step: int, values: Tensor, present: Tensor) -> None:
        """Takes one point of each task that is present.

        Args:
            step: Where the values belong, of all of them.
            values: float64 [K], finite where `present`.
            present: bool [K].
        """
        self._steps.add(torch.full_like(values, step), present)
        self._values.add(values, present)

    def slopes(self) -> Tensor:
        """Slope of the ordinary least squares line through the points of each task.

        A task's line goes through its own points alone: the steps at which it was absent are no part of it.

        Returns:
            float64 [K], per step; nan for a task without two points at different steps.
        """
        steps, values = _centred(self._steps.values), _centred(self._values.values)
        spread = (steps * steps).sum(0)
        return torch.where(spread > 0, (steps * values).sum(0) / spread, torch.nan)

    def state_dict(self) -> dict[str, Any]:
        """All points held."""
        return {"steps": self._steps.state_dict(), "values": self._values.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state_dict`; of a larger window, the newest points are kept."""
        self._steps.load_state_dict(state["steps"])
        self._values.load_state_dict(state["values"])


def _centred(values: Tensor) -> Tensor:
    """Numbers less the mean of their task, [W, K]; 0 where nothing is held.

    The largest is taken off first: the mean of numbers far from 0 loses no digits then, and of equal numbers
    exactly 0 is left.
    """
    held = ~values.isnan()
    near = torch.where(held, values - values.nan_to_num(nan=-torch.inf).amax(0), 0.0)
    mean = near.sum(0) / held.sum(0).clamp(min=1)
    return torch.where(held, near - mean, 0.0)
