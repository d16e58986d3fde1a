"""From the configuration to what keeps the task weights up to date."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mftrun.data.draws import Draws, can_probe, refuse_unprobed
from mftrun.jobs.preparation import build_group
from mftrun.losses.objective import Objective
from mftrun.schema import PROBE_TOKENS, RunConfig
from mftrun.training.balance import Balance
from mftrun.training.gradient_norms import TaskGradients
from mftrun.training.probe import Probe
from mftrun.training.watching import ProbeWatcher

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mftrun.data.table import SampleTable
    from mftrun.models.with_nll import ModelWithNll

log = logging.getLogger(__name__)


def probe_interval(config: RunConfig, objective: Objective) -> int | None:
    """Steps from one probe to the next; None for a run that does not probe."""
    return config.probe.interval or (1 if objective.watch == "probe" else None)


def check_probe(config: RunConfig, valid: SampleTable) -> None:
    """Refuses a probe that cannot be taken, before any model is loaded.

    Args:
        config: The run's configuration.
        valid: Its validation samples.

    Raises:
        ConfigError: A task has no validation sample to probe.
    """
    objective = build_group(config, "loss", tasks=valid.tasks)
    if probe_interval(config, objective) is not None:
        refuse_unprobed(valid)
    elif config.probe.tokens_per_task != PROBE_TOKENS:
        # Not refused: a sweep over losses gives it to all of them.
        log.warning(
            "probe.tokens_per_task has no effect: this run does not probe. loss=coba and others that watch "
            "the probe do, and so does probe.interval=N, for the log alone"
        )


def build_objective(config: RunConfig, valid: SampleTable) -> Objective:
    """The objective of a run, which may go by how many different draws its probe can take.

    Args:
        config: The run's configuration.
        valid: Its validation samples.
    """
    draws = Draws(valid, config.probe.tokens_per_task, config.seed).per_pass if can_probe(valid) else None
    objective: Objective = build_group(config, "loss", tasks=valid.tasks, draws=draws)
    return objective


def build_balance(
    config: RunConfig,
    objective: Objective,
    accelerator: Accelerator,
    model: ModelWithNll,
    valid: SampleTable,
    pad_id: int,
) -> Balance:
    """What measures losses for the objective, as its weighting needs them.

    Args:
        config: The run's configuration.
        objective: Whose weights they are for.
        accelerator: Joins the ranks.
        model: The bare model-with-nll.
        valid: Validation samples.
        pad_id: Token that fills rows.
    """
    probe = _probe_watcher(config, objective, accelerator, valid, pad_id)
    gradients = TaskGradients(model, len(valid.tasks)) if objective.needs_gradient_norms else None
    return Balance(accelerator, objective, valid.tasks, probe, gradients)


def _probe_watcher(
    config: RunConfig, objective: Objective, accelerator: Accelerator, valid: SampleTable, pad_id: int
) -> ProbeWatcher | None:
    interval = probe_interval(config, objective)
    if interval is None:
        return None
    draws = Draws(valid, config.probe.tokens_per_task, config.seed)
    log.info("probe.interval=%d, with %d different draws of the validation data", interval, draws.per_pass)
    rows, max_length = build_group(config, "rows"), config.data.max_length
    probe = Probe(accelerator, valid, draws, rows, max_length, config.evaluation.batch_size, pad_id)
    return ProbeWatcher(probe, interval, objective.draw_repeats)
