"""Copies of small CPU tensors on the device of the losses."""

from __future__ import annotations

import torch
from torch import Tensor


class OnDevice:
    """The copy of a tensor on a device, made anew only where the tensor or the device is another one."""

    def __init__(self) -> None:
        self._source: Tensor | None = None
        self._copy = torch.zeros(0)

    def __call__(self, source: Tensor, device: torch.device) -> Tensor:
        """The copy. A changed value is only seen in a new tensor object.

        Args:
            source: Any tensor.
            device: Where the copy is to be.
        """
        if self._source is not source or self._copy.device != device:
            self._source, self._copy = source, source.to(device, non_blocking=True)
        return self._copy
