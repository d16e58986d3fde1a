"""From the tasks of the configuration to the sources their samples are read from."""

from __future__ import annotations

from mftrun.build import build
from mftrun.data.files import Files
from mftrun.data.hub import HubDataset
from mftrun.data.settings import TaskSources
from mftrun.data.source import Source
from mftrun.schema import RunConfig, TaskConfig, task_configs


def task_sources(config: RunConfig) -> dict[str, TaskSources]:
    """Where each task's samples come from, by name.

    Raises:
        ConfigError: A source cannot be built.
    """
    return {name: _sources(task, name, config) for name, task in task_configs(config.data).items()}


def _sources(task: TaskConfig, name: str, config: RunConfig) -> TaskSources:
    return TaskSources(_train(task, name, config), _valid(task, config), task.max_samples)


def _train(task: TaskConfig, name: str, config: RunConfig) -> Source:
    if task.source is not None:
        key = f"data.tasks.{name}.source"
        source: Source = build(task.source, Source, key, allowed=config.allowed_targets)
        return source
    if task.dataset is not None:
        return _dataset(task, task.dataset, task.split or "train", config)
    return Files(str(task.path), task.format, task.columns)


def _valid(task: TaskConfig, config: RunConfig) -> Source | None:
    if task.valid_path is not None:
        return Files(task.valid_path, task.format, task.columns)
    if task.dataset is not None and task.valid_split is not None:
        return _dataset(task, task.dataset, task.valid_split, config)
    return None


def _dataset(task: TaskConfig, dataset: str, split: str, config: RunConfig) -> HubDataset:
    # What is trained on in shards need not fit on the disk.
    streaming = config.data.shard_samples is not None
    return HubDataset(dataset, task.subset, split, task.revision, streaming, task.format, task.columns)
