"""The samples of each epoch, and their plan: one table again and again, or another table each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mftrun.data.plan import EpochPlan, Freeze, Planner

if TYPE_CHECKING:
    from mftrun.data.batch import Samples


class Epoch(NamedTuple):
    """What one epoch trains on.

    Attributes:
        samples: The samples.
        plan: Their order, in rows and global batches.
    """

    samples: Samples
    plan: EpochPlan


class WaitEndedError(Exception):
    """The wait for an epoch's samples was given up because the run is to stop."""


class Epochs(Protocol):
    """Hands out the epochs of a run."""

    @property
    def tasks(self) -> Sequence[str]:
        """Task names, the same in every epoch."""

    def epoch(self, number: int, freezes: Sequence[Freeze] = ()) -> Epoch:
        """Returns an epoch (0-based): always the same for the same run. May wait until it is there.

        Args:
            number: Of the epoch.
            freezes: From where on tasks are no longer trained; the plan may have no batch left, or none at
                all.

        Raises:
            MftrunError: It cannot be had.
            WaitEndedError: The run is to stop before it is there.
        """


class SameSamples:
    """Every epoch has all samples, in another order each time.

    Args:
        samples: The samples.
        planner: Makes the plan of an epoch.
    """

    def __init__(self, samples: Samples, planner: Planner) -> None:
        self._samples = samples
        self._planner = planner

    @property
    def tasks(self) -> Sequence[str]:
        """See `Epochs`."""
        return self._samples.tasks

    def epoch(self, number: int, freezes: Sequence[Freeze] = ()) -> Epoch:
        """See `Epochs`."""
        return Epoch(self._samples, self._planner.epoch(number, freezes))
