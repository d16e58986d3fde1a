"""What a run's folder tells: its state, progress, losses and failure, read while others may be writing."""

from mftrun.runs.finding import find_runs
from mftrun.runs.reading import Failure, RunFolder, State

__all__ = ["Failure", "RunFolder", "State", "find_runs"]
