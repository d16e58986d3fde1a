"""Per-task sums that stay on the device until someone asks."""

from __future__ import annotations

import torch
from torch import Tensor


class TaskSums:
    """Sums of nll and counts of target tokens, per task, in float64. A token of weight w counts as w tokens.

    Args:
        num_tasks: K.
        device: Where the nlls are.
    """

    def __init__(self, num_tasks: int, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(2, num_tasks, dtype=torch.float64, device=device)

    def add(self, nll: Tensor, task_ids: Tensor, target_weights: Tensor) -> None:
        """Adds target tokens. Nothing is read back from the device.

        Args:
            nll: [T]; its gradient is not followed.
            task_ids: int64 [T].
            target_weights: [T], above 0.
        """
        weights = target_weights.double()
        self._sums.index_add_(1, task_ids, torch.stack([weights * nll.detach().double(), weights]))

    def vector(self) -> Tensor:
        """A float64 [2K] copy: sums, then counts. To be added over the ranks by one all-reduce."""
        return self._sums.flatten().clone()

    def load_vector(self, vector: Tensor) -> None:
        """Takes over the sums of a `vector`.

        Args:
            vector: float64 [2K].
        """
        self._sums.copy_(vector.view_as(self._sums))

    def means(self) -> list[float | None]:
        """Mean nll of each task; None for a task without target tokens. Reads from the device."""
        sums, counts = self._sums.tolist()
        return [total / count if count else None for total, count in zip(sums, counts, strict=True)]

    def mean(self) -> float | None:
        """Mean nll over the target tokens of all tasks; None without any. Reads from the device."""
        total, count = self._sums.sum(1).tolist()
        return total / count if count else None
