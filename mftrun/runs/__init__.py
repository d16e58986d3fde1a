"""What a run's folder tells: its state, progress, losses and failure, read while others may be writing."""

from mftrun.runs.finding import Found, find, find_runs
from mftrun.runs.reading import Failure, RunFolder, State

__all__ = ["Failure", "Found", "RunFolder", "State", "find", "find_runs"]
