"""What the parent does before there are ranks: check every choice, then tokenize the data once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.build import build
from mftrun.data.cache import TokenCache
from mftrun.data.from_folder import FromFolder
from mftrun.data.from_sources import FromSources
from mftrun.data.mixture import Sampler
from mftrun.data.plan import Planner
from mftrun.data.prepare import prepare
from mftrun.data.rows import RowBuilder
from mftrun.data.settings import DataSettings
from mftrun.data.supply import Supply
from mftrun.data.table import SampleTable
from mftrun.data.template import Template
from mftrun.distributed import Strategy
from mftrun.distributed.support import check_combination, check_dtype, check_objective
from mftrun.errors import ConfigError
from mftrun.jobs.layout import RunLayout
from mftrun.jobs.sources import task_sources
from mftrun.losses.objective import Objective
from mftrun.models.adapters import Adapter
from mftrun.models.attention import check_isolation
from mftrun.models.base import ModelSource
from mftrun.paths import cache_dir
from mftrun.schema import RunConfig, task_configs
from mftrun.tracking.base import Tracker, Trackers
from mftrun.training.optimizers import OptimizerFactory
from mftrun.training.schedulers import Scheduler

if TYPE_CHECKING:
    from mftrun.data.report import DataReport

log = logging.getLogger(__name__)

# What each group's option must turn into.
EXPECTED: Mapping[str, Any] = {
    "model": ModelSource,
    "peft": Adapter,
    "template": Template,
    "rows": RowBuilder,
    "sampler": Sampler,
    "loss": Objective,
    "distributed": Strategy,
    "optimizer": OptimizerFactory,
    "scheduler": Scheduler,
}


def build_group(config: RunConfig, group: str, **runtime: Any) -> Any:
    """Builds the chosen option of a group and checks its type.

    Args:
        config: The run's configuration.
        group: Name of the group.
        runtime: Completes an option that is `_partial_`; others do without.

    Raises:
        ConfigError: It refuses its values or is of another kind.
    """
    if not config.objects[group].get("_partial_", False):
        runtime = {}
    return build(config.objects[group], EXPECTED[group], group, allowed=config.allowed_targets, **runtime)


def build_trackers(config: RunConfig) -> dict[str, Tracker | None]:
    """Builds the trackers that are asked for, by name."""
    return {
        name: None
        if node is None
        else build(node, Tracker, f"tracker.{name}", allowed=config.allowed_targets)
        for name, node in config.tracker.items()
    }


def check_parts(config: RunConfig) -> None:
    """Builds everything that needs no data and no weights, so that wrong values stop the run here.

    Raises:
        ConfigError: Names the key.
    """
    tasks = list(task_configs(config.data))
    runtime = {"loss": {"tasks": tasks}, "sampler": {"tasks": tasks}}
    parts = {group: build_group(config, group, **runtime.get(group, {})) for group in EXPECTED}
    _check_rates(config.objects["scheduler"].get("min_lr", 0.0), parts["optimizer"].lr)
    parts["model"].check()
    parts["peft"].check()
    check_combination(parts["distributed"], parts["peft"])
    check_dtype(parts["distributed"], parts["model"])
    check_objective(parts["distributed"], parts["loss"])
    check_isolation(parts["model"], shares_rows=parts["rows"].shares_rows)
    Trackers(build_trackers(config)).check()


def _check_rates(lowest: float, peak: float) -> None:
    if lowest > peak:
        raise ConfigError("scheduler.min_lr", f"{lowest} is above optimizer.lr={peak}")


def prepare_tables(config: RunConfig, run_dir: Path, *, resuming: bool) -> DataReport:
    """Makes the run's tables and tokenizer in its folder; tokens come from the cache where they can.

    Args:
        config: The run's configuration.
        run_dir: The run's folder.
        resuming: Whether the run keeps the data it was started with.

    Raises:
        DataError: A file, line or sample that the policies refuse.
        ConfigError: A task has too few samples, or the template does not fit the tokenizer.
    """
    layout = RunLayout(run_dir)
    return prepare(
        supply_of(config),
        settings_of(config),
        build_group(config, "template"),
        seed=config.seed,
        directory=layout.data,
        tokenizer_folder=layout.tokenizer,
        cuts=build_group(config, "rows").splits_samples,
        resume=resuming,
    )


def build_planner(config: RunConfig, samples: SampleTable, seed: int) -> Planner:
    """Makes the plans of epochs of these samples."""
    return Planner(
        lengths=samples.lengths,
        task=samples.task,
        sampler=build_group(config, "sampler", tasks=samples.tasks),
        rows=build_group(config, "rows"),
        seed=seed,
        global_batch_size=config.train.global_batch_size,
        max_length=config.data.max_length,
    )


def supply_of(config: RunConfig) -> Supply:
    """Where the tokens of a run come from.

    Raises:
        ConfigError: They come in shards, which are made while the run goes on.
    """
    if config.data.shard_samples is not None:
        raise ConfigError("data.shard_samples", "acts on job=train and job=preview; set it to null here")
    template, model = build_group(config, "template"), build_group(config, "model")
    if config.data.tokenized is not None:
        return FromFolder(Path(config.data.tokenized).expanduser(), settings_of(config), template, model)
    return FromSources(
        task_sources(config),
        settings_of(config),
        template,
        model,
        TokenCache(cache_dir(config.data.cache_dir)),
        config.seed,
        config.data.num_workers,
    )


def settings_of(config: RunConfig) -> DataSettings:
    """The settings that turn samples into tables."""
    data = config.data
    return DataSettings(
        max_length=data.max_length,
        on_overlong=data.on_overlong,
        on_bad=data.on_bad,
        valid_fraction=data.valid_fraction,
        valid_min=data.valid_min,
        valid_max=data.valid_max,
    )
