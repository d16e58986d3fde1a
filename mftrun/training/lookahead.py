"""What micro-batches must know of the whole global batch before the first of them makes its backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mftrun.data.batch import Batch
    from mftrun.distributed import Engine, Ranks
    from mftrun.losses.counts import Counts
    from mftrun.losses.objective import Objective
    from mftrun.models.router import RouterSums
    from mftrun.models.with_nll import NllOutput
    from mftrun.training.agreement import Agreement


@dataclass(frozen=True)
class Known:
    """Sums over the global batch, the same on every rank.

    Attributes:
        statistics: float64 [S], what the objective asked for; None where it asks for nothing.
        choices: float64 [E], expert choices of all tokens; None where they are not known ahead.
    """

    statistics: Tensor | None = None
    choices: Tensor | None = None

    def choices_of(self, only: RouterSums, ranks: Ranks) -> Tensor:
        """The expert choices of all tokens, [E]; a collective call where they are not known ahead.

        Args:
            only: The sums of this rank's one micro-batch, which then are those of its whole window.
            ranks: The ranks of the run.
        """
        return ranks.sum(only.choices.double()) if self.choices is None else self.choices


def look_ahead(
    engine: Engine, objective: Objective, window: Iterable[Batch], agreement: Agreement
) -> tuple[Iterable[Batch], Known]:
    """Finds what must be known first, where needed by a forward pass without gradients over the window.

    Objectives that need statistics, and models with a router loss under gradient accumulation, take about a
    third more time per step for it, and no more memory. Without accumulation a router loss needs none.

    Args:
        engine: Holds the prepared model.
        objective: Turns nlls into loss shares.
        window: This rank's micro-batches; their number must be the same on all ranks.
        agreement: What the whole global batch holds.

    Returns:
        The window, to be used in place of `window`; and what is known.
    """
    if not objective.needs_statistics and not engine.bare.has_router_loss:
        return window, Known()
    batches = list(window)
    if not objective.needs_statistics and len(batches) == 1:
        return batches, Known()
    return batches, _first_pass(engine, objective, batches, agreement)


def forward(model: nn.Module, batch: Batch) -> NllOutput:
    """Calls the prepared model-with-nll."""
    output: NllOutput = model(
        batch.input_ids, batch.position_ids, batch.predict_from, batch.target_ids, batch.row_lengths
    )
    return output


def places(batch: Batch, agreement: Agreement) -> tuple[Tensor, Tensor, Tensor, Counts, Tensor]:
    """What an objective takes after the nlls. Samples are told apart by their pieces."""
    return batch.task_ids, batch.piece_ids, batch.sample_sizes, agreement.counts, batch.target_weights


def _first_pass(engine: Engine, objective: Objective, window: Sequence[Batch], agreement: Agreement) -> Known:
    """The generators are left as they were found: the pass with gradients draws the same dropout masks."""
    device = engine.ranks.device
    statistics: list[Tensor] = []
    choices: list[Tensor] = []
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        for batch in window:
            moved = batch.to(device, non_blocking=True)
            output = forward(engine.model, moved)
            if objective.needs_statistics:
                statistics.append(objective.statistics(output.nll, *places(moved, agreement)))
            if output.router is not None:
                choices.append(output.router.choices.double())
    return Known(_total(engine.ranks, statistics), _total(engine.ranks, choices))


def _total(ranks: Ranks, parts: Sequence[Tensor]) -> Tensor | None:
    """The sum over micro-batches and ranks (one all-reduce)."""
    return ranks.sum(torch.stack(list(parts)).sum(0)) if parts else None
