"""A sandbox with another limit of memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mftrun.sandbox.base import Outcome, Sandbox, Step


class Limited:
    """Puts its own limit of memory in place of the steps'.

    Args:
        sandbox: What runs the commands.
        memory: Bytes.
    """

    def __init__(self, sandbox: Sandbox, memory: int) -> None:
        self._sandbox = sandbox
        self._memory = memory
        self.name = sandbox.name

    def run(self, step: Step, files: Path, build: Path) -> Outcome:
        """See `Sandbox.run`."""
        limits = replace(step.limits, memory=self._memory)
        return self._sandbox.run(replace(step, limits=limits), files, build)
