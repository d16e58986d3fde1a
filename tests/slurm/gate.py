"""Trackers that hold a run at one step of its first attempt until it is asked to stop, or break it."""

import os
import signal
import time
from pathlib import Path


class Gate:
    """Waits once a step has been logged, until the rank is asked to stop.

    Args:
        step: The step.
        file: Is made when the run waits there.
    """

    def __init__(self, step: int, file: str) -> None:
        self.step, self.file = step, Path(file)
        self.asked = False

    def check(self):
        pass

    def start(self, run):
        pass

    def log(self, step, record):
        if step == self.step and os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
            answer = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, lambda *strike: self.open(answer, *strike))
            self.file.touch()
            while not self.asked:
                time.sleep(0.05)

    def open(self, answer, *strike):
        self.asked = True
        answer(*strike)

    def finish(self, summary, exit_code):
        pass


class Either(Gate):
    """One of a sweep over `kind`: nothing, a bug, or a gate.

    Args:
        kind: Null, `bug` or `gate`.
        file: Of the gate.
    """

    def __init__(self, kind: str | None, file: str) -> None:
        super().__init__(3 if kind == "gate" else -1, file)
        self.kind = kind

    def check(self):
        if self.kind == "bug":
            raise RuntimeError("a bug of the user's own")
