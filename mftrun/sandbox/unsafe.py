"""No sandbox: a process of this machine with limits, where the user has asked for it."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from pathlib import Path

from mftrun.sandbox.base import BUILD, JOB, End, Outcome, Step
from mftrun.sandbox.building import held
from mftrun.sandbox.folders import tidy
from mftrun.sandbox.process import Command, started
from mftrun.sandbox.rlimits import limited

_INSIDE = re.compile(rf"(?<![a-z0-9_.])({JOB}|{BUILD})(?=[/:,]|$)")


class Unsafe:
    """Runs commands with the rights of whoever runs this, in a folder of their own.

    `JOB` and `BUILD` in commands and their environment are replaced by the folders themselves. Nothing is
    held back but a command that goes on too long, says too much, or takes more memory than it may.
    """

    name = "none (unsafe)"

    def run(self, step: Step, files: Path, build: Path) -> Outcome:
        """See `Sandbox.run`; a process that leaves its group survives."""
        places = {JOB: str(files.absolute()), BUILD: str(build.absolute())}

        def outside(text: str) -> str:
            return _INSIDE.sub(lambda found: places[found[1]], text)

        begin = limited(step.limits) if shutil.which("prlimit") else []
        arguments = [*begin, *map(outside, step.command)]
        environment = {name: outside(value) for name, value in step.environment.items()}
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            command = Command(arguments, step.limits, step.stdin, environment, Path(folder))
            try:
                with started(command) as running:
                    outcome = running.wait()
                # It could write in all of them, and whoever made them has to be able to remove them.
                for place in (files, build, Path(folder)):
                    with contextlib.suppress(OSError):  # it may have removed them
                        outcome = held(outcome, tidy(place, step.limits))
                return outcome
            except OSError as error:
                return Outcome(End.ERROR, None, "", "", 0.0, str(error))
