"""Trackers that strike at a certain step: deterministic interruptions of a real run."""

import os
import signal


class Strike:
    """Sends the rank a signal once a step has been logged."""

    def __init__(self, step: int, signum: int) -> None:
        self.step, self.signum = step, signum

    def check(self):
        pass

    def start(self, run):
        pass

    def log(self, step, record):
        if step == self.step:
            self.strike()

    def strike(self):
        os.kill(os.getpid(), self.signum)

    def finish(self, summary, exit_code):
        pass


class KillDuringSave(Strike):
    """Lets the next save write its weights, and then kills the process."""

    def __init__(self, step: int) -> None:
        super().__init__(step, signal.SIGKILL)

    def strike(self):
        from mftrun.training import snapshot

        save = snapshot.save_weights

        def save_and_die(model, folder):
            save(model, folder)
            os.kill(os.getpid(), signal.SIGKILL)

        snapshot.save_weights = save_and_die
