"""Task weightings: how much each task counts."""

from mftrun.losses.weightings.base import Observation, TaskWeights, Watch, Weighting, uniform
from mftrun.losses.weightings.static import Static

__all__ = ["Observation", "Static", "TaskWeights", "Watch", "Weighting", "uniform"]
