"""What the parent does before there are ranks: check every choice, then tokenize the data once."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.build import build
from mftrun.data.mixture import Sampler
from mftrun.data.prepare import DataSettings, TaskSources, Texts, prepare
from mftrun.data.rows import RowBuilder
from mftrun.data.source import JsonlFolder, Source
from mftrun.data.template import Template
from mftrun.distributed import Strategy
from mftrun.errors import ConfigError
from mftrun.files import whole_folder
from mftrun.jobs.layout import RunLayout
from mftrun.losses.objective import Objective
from mftrun.models.adapters import Adapter
from mftrun.models.base import ModelSource
from mftrun.schema import RunConfig, TaskConfig, task_configs
from mftrun.tracking.base import Tracker, Trackers
from mftrun.training.optimizers import OptimizerFactory
from mftrun.training.schedulers import Scheduler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

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

    Raises:
        ConfigError: It refuses its values or is of another kind.
    """
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
    runtime = {"loss": {"tasks": tasks}}
    parts = {group: build_group(config, group, **runtime.get(group, {})) for group in EXPECTED}
    _check_rates(config.objects["scheduler"].get("min_lr", 0.0), parts["optimizer"].lr)
    parts["model"].check()
    Trackers(build_trackers(config)).check()


def _check_rates(lowest: float, peak: float) -> None:
    if lowest > peak:
        raise ConfigError("scheduler.min_lr", f"{lowest} is above optimizer.lr={peak}")


def prepare_data(config: RunConfig, run_dir: Path, *, resuming: bool) -> DataReport:
    """Tokenizes the tasks into the run's folder; what is already there is kept.

    Args:
        config: The run's configuration.
        run_dir: The run's folder.
        resuming: Whether the run keeps the data it was started with.

    Raises:
        DataError: A file, line or sample that the policies refuse.
        ConfigError: A task has too few samples, or the template does not fit the tokenizer.
    """
    layout = RunLayout(run_dir)
    model, template = build_group(config, "model"), build_group(config, "template")

    def make_tokenizer(texts: Texts) -> PreTrainedTokenizerFast:
        tokenizer: PreTrainedTokenizerFast = model.tokenizer(texts, template.required_tokens)
        tokenizer.chat_template = template.chat_template()
        with whole_folder(layout.tokenizer) as folder:
            tokenizer.save_pretrained(folder)
        return tokenizer

    report = prepare(
        task_sources(config),
        settings_of(config),
        make_tokenizer,
        template,
        seed=config.seed,
        directory=layout.data,
        tokenizer_identity=_tokenizer_identity(config.objects["model"]),
        resume=resuming,
    )
    log.info("%s %s\n%s", "kept" if report.reused else "tokenized", layout.data, report.table())
    return report


def task_sources(config: RunConfig) -> dict[str, TaskSources]:
    """Where each task's samples come from, by name."""
    return {name: _sources(task, name, config) for name, task in task_configs(config.data).items()}


def settings_of(config: RunConfig) -> DataSettings:
    """The settings that turn samples into stores."""
    data = config.data
    return DataSettings(
        max_length=data.max_length,
        on_overlong=data.on_overlong,
        on_bad=data.on_bad,
        valid_fraction=data.valid_fraction,
        valid_min=data.valid_min,
        valid_max=data.valid_max,
    )


def _refuse_shared_files(train: JsonlFolder, valid: JsonlFolder, name: str) -> None:
    shared = {file.resolve() for file in train.files()} & {file.resolve() for file in valid.files()}
    if shared:
        raise ConfigError(
            f"data.tasks.{name}.valid_path",
            f"{min(shared)} would be trained on, too: it is also below the task's path",
        )


def _tokenizer_identity(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model option, and the digests of the tokenizer's files where they lie in a folder."""
    folder = Path(str(model.get("path", ""))).expanduser()
    files = sorted(folder.glob("*token*")) if "path" in model and folder.is_dir() else []
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}
    return {"option": json.dumps(dict(model), sort_keys=True), "files": digests}


def _sources(task: TaskConfig, name: str, config: RunConfig) -> TaskSources:
    if task.source is not None:
        train = build(task.source, Source, f"data.tasks.{name}.source", allowed=config.allowed_targets)
    else:
        train = JsonlFolder(str(task.path))
    valid = None if task.valid_path is None else JsonlFolder(task.valid_path)
    if isinstance(train, JsonlFolder) and valid is not None:
        _refuse_shared_files(train, valid, name)
    return TaskSources(train, valid, task.max_samples)
