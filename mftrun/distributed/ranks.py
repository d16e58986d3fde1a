"""A rank's place among the others: which part of the data is its, and how ranks add up what they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import Tensor


class Ranks:
    """The ranks of a run, as one of them sees them.

    Args:
        accelerator: Has joined them.

    Attributes:
        accelerator: The same, for the strategies that prepare a model with it.
        device: Where this rank computes.
        index: Which part of the global batch is this rank's, from 0.
        count: Into how many parts the global batch is dealt.
        processes: How many ranks there are.
        is_main: Whether this is the one rank that logs and writes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.index: int = accelerator.process_index
        self.count: int = accelerator.num_processes
        self.processes: int = accelerator.num_processes
        self.is_main: bool = accelerator.is_main_process

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of what the ranks have, on every rank; a new tensor. A collective call."""
        total: Tensor = self.accelerator.reduce(tensor, reduction="sum")
        return total

    def sum_in_place(self, tensor: Tensor) -> None:
        """The same as `sum`, in the memory of `tensor`."""
        from torch import distributed

        if self.count > 1:
            distributed.all_reduce(tensor)

    def any(self, own: bool) -> bool:
        """Whether it is true on some rank; a collective call, for which the host waits."""
        import torch

        if self.processes == 1:
            return own
        return bool(self.sum(torch.tensor(float(own), device=self.device)))

    def gather(self, value: Any) -> list[Any]:
        """What each rank has, in their order, on every rank; anything that pickles. A collective call."""
        from accelerate.utils import gather_object

        values: list[Any] = gather_object([value])
        return values

    def wait(self) -> None:
        """Returns when all ranks have come here."""
        self.accelerator.wait_for_everyone()
