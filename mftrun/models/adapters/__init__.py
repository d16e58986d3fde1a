"""What is trained of a model: all of it, or adapters on it."""

from mftrun.models.adapters.base import Adapter, ParameterCounts, parameter_counts
from mftrun.models.adapters.full import FullFineTuning
from mftrun.models.adapters.lora import Lora
from mftrun.models.adapters.method import PeftMethod

__all__ = ["Adapter", "FullFineTuning", "Lora", "ParameterCounts", "PeftMethod", "parameter_counts"]
