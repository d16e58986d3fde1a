"""Whether everything that should be trained is: libraries that lose a gradient do so in silence."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class GradientRecord:
    """Watches the gradients of some steps.

    A gradient may be zero at first: with B = 0 that of a low-rank adapter's A is, and some methods need a few
    steps until all of their factors have moved. It may never be missing or not finite, and over all recorded
    steps it has to be something other than zero.
    """

    def __init__(self) -> None:
        self._seen: dict[str, bool] = {}
        self._problems: dict[str, str] = {}

    def add(self, gradients: Iterable[tuple[str, Tensor | None]]) -> None:
        """Records a step, after its backward pass.

        Args:
            gradients: Name and gradient of every trained parameter; of a sharded one the whole gradient.
        """
        for name, gradient in gradients:
            if gradient is None:
                self._problems.setdefault(name, "has no gradient")
            elif not bool(torch.isfinite(gradient).all()):
                self._problems.setdefault(name, "has a gradient that is not finite")
            else:
                self._seen[name] = self._seen.get(name, False) or bool(gradient.any())

    def problems(self) -> list[str]:
        """What is wrong with each parameter that is not trained as it should be, in order of their names."""
        idle = {name: "has had no gradient but zero" for name, moved in self._seen.items() if not moved}
        return [f"{name} {problem}" for name, problem in sorted({**idle, **self._problems}.items())]
