"""The objective: the nlls of a global batch become one scalar, in shares that add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mftrun.errors import ConfigError
from mftrun.losses.counts import Counts
from mftrun.losses.normalizations import Normalization
from mftrun.losses.token_losses import Targets, TokenLoss
from mftrun.losses.weightings import Weighting


class Objective:
    """Token loss x normalization x task weighting.

    Args:
        token_loss: Loss of each target token.
        normalization: How tokens are averaged.
        weighting: How much each task counts.
        tasks: Names of the tasks, in the order of the task ids.

    Raises:
        ConfigError: A weight is for an unknown task, or the normalization knows no task weights.
    """

    def __init__(
        self, token_loss: TokenLoss, normalization: Normalization, weighting: Weighting, tasks: Sequence[str]
    ) -> None:
        _refuse_idle_weights(normalization, weighting)
        self._token_loss = token_loss
        self._normalization = normalization
        self._weights = weighting.build(tasks)
        self._moved = (self._weights.current(), self._weights.current())

    def loss(
        self,
        nll: Tensor,
        task_ids: Tensor,
        sample_ids: Tensor,
        sample_sizes: Tensor,
        counts: Counts,
        target_weights: Tensor | None = None,
    ) -> Tensor:
        """Share of this micro-batch in the loss of its global batch. Nothing is read back from the device.

        The shares of all micro-batches of all ranks add up to the loss, and their gradients to its gradient.

        Args:
            nll: [T], -log p of each target token.
            task_ids: int64 [T].
            sample_ids: int64 [T], equal for the tokens of one sample; need not be so between micro-batches.
            sample_sizes: [T], target tokens of the token's whole sample, or their summed weight.
            counts: Of the whole global batch, on the device of `nll`.
            target_weights: [T], how many tokens each target counts as, in `sample_sizes` and `counts`, too;
                None for 1 each.

        Returns:
            A scalar in the dtype of `nll`; 0, with its graph, when T is 0.
        """
        if target_weights is None:
            target_weights = torch.ones_like(nll)
        targets = Targets(nll, target_weights, task_ids, sample_ids, sample_sizes)
        values = self._token_loss.values(targets, counts)
        weights = self._weights_on(counts.tokens.device)
        coefficients = self._normalization.coefficients(counts, weights, task_ids, sample_sizes)
        return (coefficients * target_weights.double() * values.double()).sum().to(nll.dtype)

    def task_weights(self) -> Tensor:
        """Current task weights, float64 [K], as they are before normalization."""
        return self._weights.current()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold of the weighting."""
        return {"weighting": self._weights.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state_dict`."""
        self._weights.load_state_dict(state["weighting"])

    def _weights_on(self, device: torch.device) -> Tensor:
        """The weights on `device`, copied there only after they have changed."""
        current = self._weights.current()
        source, moved = self._moved
        if source is not current or moved.device != device:
            moved = current.to(device, non_blocking=True)
            self._moved = (current, moved)
        return moved


def _refuse_idle_weights(normalization: Normalization, weighting: Weighting) -> None:
    if weighting.weighs and not normalization.uses_weights:
        raise ConfigError(
            "loss.weighting",
            f"task weights have no effect under {type(normalization).__name__}, averaging over all tasks "
            "alike; use loss=mft or loss=task_sample_mean, or leave the weights out",
        )
