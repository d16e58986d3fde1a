"""A tracker that strikes in the first attempt of a run, and leaves the second in peace."""

import os
import signal
from pathlib import Path


class Once:
    """Kills the rank that logs, once a step has been logged, unless it has done so before."""

    def __init__(self, step: int, mark: str) -> None:
        self.step, self.mark = step, Path(mark)

    def check(self):
        pass

    def start(self, run):
        pass

    def log(self, step, record):
        if step == self.step and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def finish(self, summary, exit_code):
        pass
