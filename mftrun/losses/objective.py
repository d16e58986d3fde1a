"""The objective: the nlls of a global batch become one scalar, in shares that add up."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mftrun.errors import ConfigError
from mftrun.losses.counts import Counts
from mftrun.losses.normalizations import Normalization
from mftrun.losses.on_device import OnDevice
from mftrun.losses.token_losses import Targets, TokenLoss
from mftrun.losses.weightings import Observation, Watch, Weighting

log = logging.getLogger(__name__)


class Objective:
    """Token loss x normalization x task weighting.

    Args:
        token_loss: Loss of each target token.
        normalization: How tokens are averaged.
        weighting: How much each task counts.
        tasks: Names of the tasks, in the order of the task ids.
        draws: Probes on different samples before they repeat; None where nothing is probed.

    Raises:
        ConfigError: A setting is for an unknown task, or the normalization knows no task weights.
    """

    def __init__(
        self,
        token_loss: TokenLoss,
        normalization: Normalization,
        weighting: Weighting,
        tasks: Sequence[str],
        draws: int | None = None,
    ) -> None:
        _refuse_idle_weights(normalization, weighting)
        self._token_loss = token_loss.for_tasks(tasks)
        self._normalization = normalization
        self._weighting = weighting
        self._weights = weighting.build(tasks, draws)
        self._everyone = torch.ones(len(tasks), dtype=torch.bool)
        self._among = _Among(normalization, self._everyone)
        self._source: Tensor | None = None
        self._task_weights = torch.zeros(0)
        self._moved = OnDevice()

    @property
    def needs_statistics(self) -> bool:
        """Whether `loss` must be given `statistics`, which takes a forward pass of the window before it."""
        return self._token_loss.needs_statistics

    @property
    def watch(self) -> Watch | None:
        """Which losses `observe` is to be given; None for none."""
        return self._weighting.watch

    @property
    def active(self) -> Tensor:
        """Which tasks are not frozen, bool [K]."""
        return self._among.active

    @property
    def draw_repeats(self) -> int:
        """Probes in a row that are taken on the same samples, 1 or more."""
        return self._weighting.draw_repeats

    @property
    def warmup(self) -> int:
        """Observations before any weight can change."""
        return self._weights.warmup

    @property
    def needs_gradient_norms(self) -> bool:
        """Whether `observe` must be given gradient norms."""
        return self._weighting.needs_gradient_norms

    def loss(
        self,
        nll: Tensor,
        task_ids: Tensor,
        sample_ids: Tensor,
        sample_sizes: Tensor,
        counts: Counts,
        target_weights: Tensor | None = None,
        statistics: Tensor | None = None,
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
            statistics: float64 [S], the sum of `statistics` over all micro-batches of all ranks; None unless
                `needs_statistics`.

        Returns:
            A scalar in the dtype of `nll`; 0, with its graph, when T is 0.
        """
        targets = _targets(nll, task_ids, sample_ids, sample_sizes, target_weights)
        values = self._token_loss.values(targets, statistics)
        return (self._shares(targets, counts) * values.double()).sum().to(nll.dtype)

    def statistics(
        self,
        nll: Tensor,
        task_ids: Tensor,
        sample_ids: Tensor,
        sample_sizes: Tensor,
        counts: Counts,
        target_weights: Tensor | None = None,
    ) -> Tensor:
        """What `loss` must know of this micro-batch, for all others. Nothing is read back from the device.

        Takes what `loss` takes, with the weights that the step will have; the gradient is not followed.

        Returns:
            float64 [S], to be summed over all micro-batches of all ranks; empty unless `needs_statistics`.
        """
        targets = _targets(nll.detach(), task_ids, sample_ids, sample_sizes, target_weights)
        return self._token_loss.statistics(targets, self._shares(targets, counts))

    def observe(self, step: int, losses: Tensor, draw: int, gradient_norms: Tensor | None = None) -> None:
        """Lets the weighting see losses; the weights of the steps that follow may change by it.

        Args:
            step: Optimizer steps done when they were measured.
            losses: float64 [K] on the CPU, means over target tokens; nan for an absent task. The same on
                every rank.
            draw: What they were measured on; equal for the same samples.
            gradient_norms: float64 [K]; None unless `needs_gradient_norms`.
        """
        active = self._among.active
        if active.any():
            self._weights.observe(Observation(step, losses, active, draw, gradient_norms))

    def freeze(self, task_indices: Collection[int]) -> None:
        """Takes tasks out of the game: weight 0, and what is left is the objective of the others alone.

        Args:
            task_indices: All tasks that are frozen from now on; those frozen before that it lacks come back.
        """
        active = self._everyone.index_fill(0, torch.tensor(list(task_indices), dtype=torch.int64), False)
        if not torch.equal(active, self._among.active):
            self._among = _Among(self._normalization, active)
            self._source = None

    def task_weights(self) -> Tensor:
        """Current task weights, float64 [K] on the CPU, before normalization; those of frozen tasks are 0.

        A new tensor object whenever they may have changed.
        """
        current = self._weights.current()
        if self._source is not current:
            self._source = current
            self._task_weights = current.masked_fill(~self._among.active, 0)
        return self._task_weights

    def diagnostics(self) -> Mapping[str, Tensor]:
        """What the current weights were computed from: name → float64 [K] or []; nan is to be left out."""
        return self._weights.diagnostics()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold of the weighting. Frozen tasks are for the caller to remember."""
        return {"weighting": {"kind": self._kind, "state": self._weights.state_dict()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state_dict`; that of another kind of weighting is left, with a warning."""
        saved = state["weighting"]
        if saved["kind"] == self._kind:
            self._weights.load_state_dict(saved["state"])
        else:
            log.warning(
                "the checkpoint holds the state of %s; task weights now come from %s, which starts afresh",
                saved["kind"],
                self._kind,
            )

    @property
    def _kind(self) -> str:
        return f"{type(self._weighting).__name__} (watch: {self.watch})"

    def _shares(self, targets: Targets, counts: Counts) -> Tensor:
        """Factor of each token's value in the loss of the global batch, float64 [T]."""
        weights = self._moved(self.task_weights(), counts.tokens.device)
        coefficients = self._among.coefficients(counts, weights, targets.task_ids, targets.sample_sizes)
        return coefficients * targets.target_weights.double()


class _Among:
    """A normalization that goes by the active tasks alone.

    Args:
        normalization: That of all tasks.
        active: bool [K].
    """

    def __init__(self, normalization: Normalization, active: Tensor) -> None:
        self.active = active
        self._normalization = normalization
        self._is_whole = bool(active.all())
        self._ones = active.double()
        self._moved = OnDevice()

    def coefficients(self, counts: Counts, weights: Tensor, task_ids: Tensor, sample_sizes: Tensor) -> Tensor:
        """See `Normalization.coefficients`; those of tokens of other tasks are 0."""
        if self._is_whole:
            return self._normalization.coefficients(counts, weights, task_ids, sample_sizes)
        active = self._moved(self._ones, counts.tokens.device)
        kept = Counts(counts.tokens * active, counts.samples * active)
        return active[task_ids] * self._normalization.coefficients(kept, weights, task_ids, sample_sizes)


def _targets(
    nll: Tensor, task_ids: Tensor, sample_ids: Tensor, sample_sizes: Tensor, target_weights: Tensor | None
) -> Targets:
    weights = torch.ones_like(nll) if target_weights is None else target_weights
    return Targets(nll, weights, task_ids, sample_ids, sample_sizes)


def _refuse_idle_weights(normalization: Normalization, weighting: Weighting) -> None:
    if weighting.weighs and not normalization.uses_weights:
        raise ConfigError(
            "loss.weighting",
            f"task weights, by hand or adaptive, have no effect under {type(normalization).__name__}, which "
            "averages over all tasks alike; use loss/normalization=task_mean (as loss=mft, loss=coba and "
            "their like do) or task_sample_mean, or leave the weights out with loss/weighting=static",
        )
