"""CoBa: weights that bring tasks to convergence together, and turn from those that diverge."""

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
    at_least,
    first_known,
    masked_softmax,
    ratio,
    relative,
    share_out,
    warmup_for,
)
from mftrun.losses.weightings.base import Observation
from mftrun.losses.weightings.digest import Digest
from mftrun.losses.weightings.history import History, Recent


@dataclass(frozen=True)
class Coba(Adaptive):
    """Convergence balancing (CoBa, arXiv 2410.06741).

    A task's loss is divided by its first one, and slope_k(t) is the least squares slope of that ratio.

    - RCS_k = softmax_k(K slope_k / sum_j |slope_j|): slower tasks get more.
    - ACS_k = softmax_k(-n slope_k(t) / sum of its last n |slope_k|), n at most `window`: diverging tasks get
      less.
    - DF = min(1, t softmax(-tau t m / sum |m|)[now]) over the course so far of m, the largest slope of all
      tasks: near 1 while all converge, near 0 once one diverges. It looks back over the whole run, not over
      `window`, here in bounded memory (exact for 1024 observations, then close).
    - The weights are DF RCS + (1 - DF) ACS.

    The code that its authors released differs: there DF can exceed 1, and the weights w go through
    softmax(K w) (here `sharpness` 1) and then get a floor of 1 / (10 K) (here `min_weight` 0.1).

    Attributes:
        tau: How fast DF turns from RCS to ACS, above 0.
        window: Newest observations of a task that its slope goes through, 2 or more; also slopes in its ACS.
            None takes 3 times `warmup`; the paper's are 2 to 5 times.
        warmup: Observations of a task before its weight leaves 1 / K, 2 or more. None takes a pass over the
            draws of the probe, as the paper does, but 10 or more; 20 where training is watched.
        sharpness: s of a last softmax(s K w); None leaves it out.
        min_weight: m of a floor of m / K under each weight, which are then divided by their sum; 0 to 1.

    Raises:
        ConfigError: A setting is out of its range.
    """

    tau: float = 5.0
    window: int | None = None
    warmup: int | None = None
    sharpness: float | None = None
    min_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        settings.positive("tau", self.tau)
        for name in ("window", "warmup"):
            if (given := getattr(self, name)) is not None:
                settings.whole(name, given, 2, "a slope needs two points")
        if self.sharpness is not None:
            settings.positive("sharpness", self.sharpness)
        settings.between("min_weight", self.min_weight, 0, 1)

    def build(self, tasks: Sequence[str], draws: int | None = None) -> CobaWeights:
        """See `Weighting.build`."""
        warmup = self.warmup or warmup_for(draws if self.watch == "probe" else None)
        return CobaWeights(len(tasks), self, warmup, self.window or 3 * warmup)


class CobaWeights(AdaptiveWeights):
    """Weights of a run with `Coba`. Logs `slope`, `rcs`, `acs` of each task, and `df`.

    Args:
        num_tasks: K.
        config: The settings.
        warmup: Observations of a task before its weight leaves 1 / K.
        window: Newest observations that slopes go through.
    """

    def __init__(self, num_tasks: int, config: Coba, warmup: int, window: int) -> None:
        super().__init__(num_tasks, warmup)
        self._config = config
        self._initial = torch.full((num_tasks,), torch.nan, dtype=torch.float64)
        self._history = History(window, num_tasks)
        self._slopes = Recent(window, num_tasks)
        self._largest = Digest()
        self._factor = torch.ones((), dtype=torch.float64)

    def _weigh(self, observation: Observation, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        slopes, known = self._take(observation, present)
        if (known & present).any():  # else there is no new slope, and all stays as it was
            self._factor = self._divergence(float(slopes[known].max()))
        rcs = masked_softmax(relative(slopes, known), known)
        acs = masked_softmax(-self._own_pace(slopes), known)
        shares = self._shaped(self._factor * rcs + (1 - self._factor) * acs, known)
        logged = {
            "slope": slopes.masked_fill(~observation.active, torch.nan),
            "rcs": rcs.masked_fill(~known, torch.nan),
            "acs": acs.masked_fill(~known, torch.nan),
            "df": torch.where(known.any(), self._factor, torch.nan),
        }
        return share_out(shares, known, observation.active), logged

    def _take(self, observation: Observation, present: Tensor) -> tuple[Tensor, Tensor]:
        """Adds to the curves and gives their slopes, and which of them count."""
        losses = at_least(observation.losses)
        self._initial = first_known(self._initial, losses, present)
        self._history.add(observation.step, losses / self._initial, present)
        slopes = self._history.slopes()
        warm = ~slopes.isnan() & (self._history.seen >= self.warmup)
        self._slopes.add(slopes, warm & present)
        return slopes, warm & observation.active

    def _own_pace(self, slopes: Tensor) -> Tensor:
        """Each task's slope relative to the mean size of its last ones, [K]."""
        held = self._slopes.values
        return ratio(slopes * (~held.isnan()).sum(0), held.abs().nansum(0))

    def _divergence(self, largest: float) -> Tensor:
        """DF, once the largest slope of now has been added to its course."""
        course = self._largest
        course.add(largest)
        scale = -self._config.tau * course.number / course.absolute if course.absolute > 0 else 0.0
        now = course.number * torch.exp(scale * largest - course.log_sum_exp(scale))
        return now.clamp(max=1.0)

    def _shaped(self, shares: Tensor, known: Tensor) -> Tensor:
        """The shares of known tasks after `sharpness` and `min_weight`."""
        count = known.sum().clamp(min=1)
        if self._config.sharpness is not None:
            shares = masked_softmax(self._config.sharpness * count * shares, known)
        floored = torch.where(known, shares.clamp(min=self._config.min_weight / count), 0.0)
        return ratio(floored, floored.sum())

    def _memory(self) -> dict[str, Any]:
        return {
            "initial": self._initial,
            "history": self._history.state_dict(),
            "slopes": self._slopes.state_dict(),
            "largest": self._largest.state_dict(),
            "factor": self._factor,
        }

    def _recall(self, memory: Mapping[str, Any]) -> None:
        self._initial, self._factor = memory["initial"], memory["factor"]
        self._history.load_state_dict(memory["history"])
        self._slopes.load_state_dict(memory["slopes"])
        self._largest.load_state_dict(memory["largest"])
