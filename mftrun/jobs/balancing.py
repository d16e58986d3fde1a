"""From the configuration to what keeps the task weights up to date."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mftrun.data.draws import Draws, missing, refuse_unprobed
from mftrun.jobs.preparation import build_group
from mftrun.losses.objective import Objective
from mftrun.schema import PROBE_TOKENS, RunConfig
from mftrun.training.balance import Balance
from mftrun.training.gradient_norms import TaskGradients
from mftrun.training.probe import Probe
from mftrun.training.watching import ProbeWatcher

if TYPE_CHECKING:
    from mftrun.data.table import SampleTable
    from mftrun.distributed import Ranks
    from mftrun.models.with_nll import ModelWithNll

log = logging.getLogger(__name__)


def probe_interval(config: RunConfig, objective: Objective) -> int | None:
    """Steps from one probe to the next; None for a run that does not probe."""
    return config.probe.interval or (1 if objective.watch == "probe" else None)


def check_balance(config: RunConfig, valid: SampleTable, total_steps: int) -> None:
    """Refuses a probe that cannot be taken, before any model is loaded, and says what will come to nothing.

    Args:
        config: The run's configuration.
        valid: Its validation samples.
        total_steps: Optimizer steps of the whole run.

    Raises:
        ConfigError: A task has no validation sample to probe.
    """
    objective = build_objective(config, valid.tasks, draws_of(config, valid))
    interval = probe_interval(config, objective)
    if interval is not None:
        refuse_unprobed(valid)
    for warning in _idle(config, objective, interval, valid, total_steps):
        log.warning(warning)


def _idle(
    config: RunConfig, objective: Objective, interval: int | None, valid: SampleTable, total_steps: int
) -> Iterator[str]:
    """What is asked for and has no effect; not refused, as a sweep over losses asks it of all of them."""
    if interval is None and config.probe.tokens_per_task != PROBE_TOKENS:
        yield (
            "probe.tokens_per_task has no effect: this run does not probe. loss=coba and others that watch "
            "the probe do, and so does probe.interval=N, for the log alone"
        )
    if objective.watch is not None and len(valid.tasks) == 1:
        yield "loss.weighting has no effect on a single task; loss=mft does the same without watching it"
    seen = -(-total_steps // (interval or 1)) if objective.watch == "probe" else total_steps
    if objective.watch is not None and seen <= objective.warmup:
        yield (
            f"task weights will stay equal: {seen} observations in {total_steps} steps, and loss.weighting "
            f"takes {objective.warmup} to warm up; lower loss.weighting.warmup or probe.interval, or train "
            "longer"
        )
    unwatched = missing(valid)
    if config.evaluation.early_stopping.per_task is not None and unwatched:
        yield f"never frozen, as they have no validation samples: {', '.join(unwatched)}"


def draws_of(config: RunConfig, valid: SampleTable) -> Draws | None:
    """What a probe can take of the validation samples; None where some task has none."""
    return None if missing(valid) else Draws(valid, config.probe.tokens_per_task, config.seed)


def build_objective(config: RunConfig, tasks: Sequence[str], draws: Draws | None) -> Objective:
    """The objective of a run, which may go by how many different draws its probe can take."""
    per_pass = None if draws is None else draws.per_pass
    objective: Objective = build_group(config, "loss", tasks=tasks, draws=per_pass)
    return objective


def build_balance(
    config: RunConfig,
    objective: Objective,
    ranks: Ranks,
    model: ModelWithNll,
    valid: SampleTable,
    draws: Draws | None,
    pad_id: int,
) -> Balance:
    """What measures losses for the objective, as its weighting needs them.

    Args:
        config: The run's configuration.
        objective: Whose weights they are for.
        ranks: The ranks of the run.
        model: The bare model-with-nll.
        valid: Validation samples.
        draws: What a probe can take of them.
        pad_id: Token that fills rows.
    """
    probe = _probe_watcher(config, objective, ranks, valid, draws, pad_id)
    gradients = (
        TaskGradients(model, len(valid.tasks), ranks.device) if objective.needs_gradient_norms else None
    )
    return Balance(ranks, objective, valid.tasks, probe, gradients)


def _probe_watcher(
    config: RunConfig,
    objective: Objective,
    ranks: Ranks,
    valid: SampleTable,
    draws: Draws | None,
    pad_id: int,
) -> ProbeWatcher | None:
    interval = probe_interval(config, objective)
    if interval is None:
        return None
    assert draws is not None, "the parent has refused to probe tasks without validation samples"
    log.info("probe.interval=%d, with %d different draws of the validation data", interval, draws.per_pass)
    rows, max_length = build_group(config, "rows"), config.data.max_length
    probe = Probe(ranks, valid, draws, rows, max_length, config.evaluation.batch_size, pad_id)
    return ProbeWatcher(probe, interval, objective.draw_repeats)
