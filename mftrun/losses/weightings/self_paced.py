"""Self-paced weighting: tasks whose loss falls at about the average pace get most, those that rise least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mftrun.losses.weightings import settings
from mftrun.losses.weightings.adaptive import (
    Adaptive,
    AdaptiveWeights,
    masked_softmax,
    relative,
    share_out,
    warmup_for,
)
from mftrun.losses.weightings.base import Observation
from mftrun.losses.weightings.history import History


@dataclass(frozen=True)
class SelfPaced(Adaptive):
    """Weights from the slopes of the loss curves, as released by MFTCoder v0.3 and v0.4 (arXiv 2311.02303).

    With a_k = K slope_k / sum_j |slope_j|, the score of a task is -softmax(a)_k a_k and the weights are
    softmax(scale * score). With the released scale of 50 this nearly selects one task: slopes -1, -1 and +1
    give .5, .5 and 0. All slopes 0 give equal weights.

    A score is highest where a_k = -1, so the task that falls at about the average pace gets most; those that
    fall more slowly or faster get less, and those that rise least.

    Attributes:
        window: Newest observations of a task that its slope goes through, 2 or more.
        scale: How sharply scores are told apart, 0 or more.
        warmup: Observations of a task before its weight leaves 1 / K, 2 or more. None takes a pass over the
            draws of the probe, but 10 or more; 20 where training is watched.

    Raises:
        ConfigError: A setting is out of its range.
    """

    window: int = 100
    scale: float = 50.0
    warmup: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        settings.whole("window", self.window, 2, "a slope needs two points")
        settings.between("scale", self.scale, 0)
        if self.warmup is not None:
            settings.whole("warmup", self.warmup, 2, "a slope needs two points")

    def build(self, tasks: Sequence[str], draws: int | None = None) -> SelfPacedWeights:
        """See `Weighting.build`."""
        return SelfPacedWeights(
            len(tasks), self, self.warmup or warmup_for(draws if self.watch == "probe" else None)
        )


class SelfPacedWeights(AdaptiveWeights):
    """Weights of a run with `SelfPaced`. Logs `slope`, nats per step, and `score`.

    Args:
        num_tasks: K.
        config: The settings.
        warmup: Observations of a task before its weight leaves 1 / K.
    """

    def __init__(self, num_tasks: int, config: SelfPaced, warmup: int) -> None:
        super().__init__(num_tasks, warmup)
        self._config = config
        self._history = History(config.window, num_tasks)

    def _weigh(self, observation: Observation, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self._history.add(observation.step, observation.losses, present)
        slopes = self._history.slopes()
        known = observation.active & ~slopes.isnan() & (self._history.seen >= self.warmup)
        pace = relative(slopes, known)
        scores = -masked_softmax(pace, known) * pace
        shares = masked_softmax(self._config.scale * scores, known)
        logged = {"slope": slopes.masked_fill(~observation.active, torch.nan)}
        logged["score"] = scores.masked_fill(~known, torch.nan)
        return share_out(shares, known, observation.active), logged

    def _memory(self) -> dict[str, Any]:
        return {"history": self._history.state_dict()}

    def _recall(self, memory: Mapping[str, Any]) -> None:
        self._history.load_state_dict(memory["history"])
