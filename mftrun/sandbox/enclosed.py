"""What sandboxes that shut a program in share: folders handed over, builds looked at, no exceptions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from mftrun.sandbox.base import End, Outcome, Step
from mftrun.sandbox.building import Building
from mftrun.sandbox.folders import hand_over


class Enclosed(ABC):
    """A sandbox whose programs have rights of their own, and see the folders they are given."""

    def run(self, step: Step, files: Path, build: Path) -> Outcome:
        """See `Sandbox.run`.

        A program that a signal has ended cannot be told from one that exits with 128 + the signal.
        """
        try:
            hand_over(files, build)
            building = Building(step, build)
            return building.ended(self._outcome(step, files, build, building))
        except OSError as error:
            return Outcome(End.ERROR, None, "", "", 0.0, str(error))

    @abstractmethod
    def _outcome(self, step: Step, files: Path, build: Path, building: Building) -> Outcome:
        """What became of the command; `building` is to be looked at meanwhile."""
