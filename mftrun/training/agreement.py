"""The one small all-reduce of a step: what the global batch holds, and whether to save or stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mftrun.losses.counts import Counts

if TYPE_CHECKING:
    from mftrun.distributed import Ranks


@dataclass(frozen=True)
class Ballot:
    """What one rank brings to the step.

    Attributes:
        targets: float64 [K], weighted target tokens per task in this rank's window.
        samples: float64 [K], samples, or pieces of cut ones, with at least one target, per task.
        tokens: Non-padding tokens in the window.
        slots: All positions in the window, padding included.
        stop: This rank was told to stop.
        save: This rank was told to save, or the time for it has come.
    """

    targets: np.ndarray
    samples: np.ndarray
    tokens: int
    slots: int
    stop: bool
    save: bool

    @classmethod
    def to_stop(cls, num_tasks: int) -> Ballot:
        """That of a rank without data, which therefore cannot go on."""
        return cls(np.zeros(num_tasks), np.zeros(num_tasks), tokens=0, slots=0, stop=True, save=False)


@dataclass(frozen=True)
class Agreement:
    """The same on every rank: sums over the global batch, and what any rank asked for.

    Attributes:
        counts: Weighted target tokens and samples per task, on the device.
        targets: The same target-token counts, on the host; whole numbers as int.
        samples: The same sample counts, on the host.
        tokens: Non-padding tokens.
        slots: Positions, padding included.
        stop: Some rank was told to stop.
        save: Some rank wants a checkpoint.
        watched: float64 [W] on the CPU, the sums over the ranks of what rode along.
    """

    counts: Counts
    targets: list[float]
    samples: list[int]
    tokens: int
    slots: int
    stop: bool
    save: bool
    watched: torch.Tensor


_TAIL = 4  # tokens, slots, stop, save


def agree(ranks: Ranks, ballot: Ballot, watched: torch.Tensor) -> Agreement:
    """Sums the ranks' ballots (one all-reduce of 2K + 4 + W numbers, one read-back).

    Args:
        ranks: The ranks of the run.
        ballot: This rank's.
        watched: float64 [W] on the device, more to be summed: losses that the task weights depend on.
    """
    tail = [ballot.tokens, ballot.slots, int(ballot.stop), int(ballot.save)]
    own = np.concatenate([ballot.targets, ballot.samples, np.asarray(tail, dtype=np.float64)])
    local = torch.cat([torch.from_numpy(own).to(ranks.device), watched])
    total = ranks.sum(local)
    k = len(ballot.targets)
    host = total.cpu()
    targets = [int(value) if value.is_integer() else value for value in host[:k].tolist()]
    samples = [int(value) for value in host[k : 2 * k].tolist()]
    tokens, slots, stop, save = host[2 * k : 2 * k + _TAIL].tolist()
    return Agreement(
        counts=Counts(tokens=total[:k], samples=total[k : 2 * k]),
        targets=targets,
        samples=samples,
        tokens=int(tokens),
        slots=int(slots),
        stop=stop > 0,
        save=save > 0,
        watched=host[2 * k + _TAIL :],
    )
