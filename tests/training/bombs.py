"""Trackers that strike at a certain step: deterministic interruptions of a real run."""

import os
import resource
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
    """Lets the next save write its tensors, and then kills the process."""

    def __init__(self, step: int) -> None:
        super().__init__(step, signal.SIGKILL)

    def strike(self):
        from torch.distributed.checkpoint import FileSystemWriter

        write = FileSystemWriter.write_data

        def write_and_die(writer, plan, planner):
            write(writer, plan, planner)
            os.kill(os.getpid(), signal.SIGKILL)

        FileSystemWriter.write_data = write_and_die


class FullDisk(Strike):
    """Lets no file grow beyond 20 kB from one logged step until another."""

    def __init__(self, step: int, until: int) -> None:
        super().__init__(step, 0)
        self.until = until

    def log(self, step, record):
        if step in (self.step, self.until):
            limit = 20_000 if step == self.step else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


class Raise(Strike):
    """Fails where no tracker may: at a step that is logged, in a way that is not a tracker's own error."""

    def __init__(self, step: int) -> None:
        super().__init__(step, 0)

    def start(self, run):
        import mftrun.training.trainer as trainer

        def fail(*arguments):
            raise ZeroDivisionError

        trainer.accumulate = fail


class Scores(Strike):
    """Lets each scoring find what is asked for, whatever the model answers."""

    def __init__(self, scores: dict[int, float]) -> None:
        super().__init__(-1, 0)
        self.scores = {int(step): score for step, score in scores.items()}

    def start(self, run):
        from mftrun.examining.examiner import LiveExaminer

        found = self.scores
        LiveExaminer.examine = lambda self, step, stop: (
            None if stop.stop_requested else {"humaneval": found[step]}
        )
