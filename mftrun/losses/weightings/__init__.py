"""Task weightings: how much each task counts."""

from mftrun.losses.weightings.base import Observation, TaskWeights, Watch, Weighting, uniform
from mftrun.losses.weightings.coba import Coba
from mftrun.losses.weightings.dro import Dro
from mftrun.losses.weightings.dwa import Dwa
from mftrun.losses.weightings.famo import Famo
from mftrun.losses.weightings.gradnorm import GradNorm
from mftrun.losses.weightings.lbtw import Lbtw
from mftrun.losses.weightings.self_paced import SelfPaced
from mftrun.losses.weightings.static import Static
from mftrun.losses.weightings.uncertainty import Uncertainty

__all__ = [
    "Coba",
    "Dro",
    "Dwa",
    "Famo",
    "GradNorm",
    "Lbtw",
    "Observation",
    "SelfPaced",
    "Static",
    "TaskWeights",
    "Uncertainty",
    "Watch",
    "Weighting",
    "uniform",
]
