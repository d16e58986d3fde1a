"""The folder that a compiler writes in: looked at while it does, and tidied when it does no longer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mftrun.sandbox.base import End, Outcome, Step
from mftrun.sandbox.folders import Filling, tidy
from mftrun.sandbox.process import Check
from mftrun.sandbox.room import Room


class Building:
    """Holds a command to what it may write in its folder, if it may write at all.

    Args:
        step: The command.
        folder: What it sees as `BUILD`.
    """

    def __init__(self, step: Step, folder: Path) -> None:
        self._step = step
        self._folder = folder
        self._room = Room(folder, step.limits)

    @property
    def checks(self) -> Sequence[Check]:
        """What is asked while the command runs."""
        return [Filling(self._folder, self._step.limits).check, self._room.check] if self._step.builds else []

    def ended(self, outcome: Outcome) -> Outcome:
        """The outcome, with what the folder says to it; whoever has made the folder can now remove it.

        Args:
            outcome: Of the command.
        """
        if not self._step.builds:
            return outcome
        self._room.check()
        return self._room.judged(held(outcome, tidy(self._folder, self._step.limits)))


def held(outcome: Outcome, wrong: tuple[End, str] | None) -> Outcome:
    """The outcome of a command that left something in a folder.

    Args:
        outcome: Of the command.
        wrong: What is wrong with the folder; None where nothing is.
    """
    if wrong is None or outcome.end is not End.EXITED:
        return outcome
    return outcome._replace(end=wrong[0], exit_code=None, reason=wrong[1])
