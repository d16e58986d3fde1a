"""The scalar groups of the config, and the check that every key acts or is refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field

from mftrun.build import check_node, check_value, is_target
from mftrun.data.tokenized import tokenized_tasks
from mftrun.errors import ConfigError
from mftrun.nearest import meant, unknown
from mftrun.training.scoring import PASS, metrics_of

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]

PROBE_TOKENS = 1024
"""The default of `probe.tokens_per_task`."""

# Groups whose option is one object; `tracker` is a mapping of them.
OBJECTS = (
    "job",
    "model",
    "peft",
    "template",
    "rows",
    "sampler",
    "loss",
    "distributed",
    "optimizer",
    "scheduler",
    "sandbox",
)


@dataclass(frozen=True)
class TrainConfig:
    """How long and in which portions to train.

    Attributes:
        epochs: Passes over the data, fractions allowed; `None` leaves the length to `max_steps`.
        max_steps: Optimizer steps; `None` leaves the length to `epochs`. With both, the shorter.
        global_batch_size: Rows of one optimizer step, over all ranks.
        micro_batch_size: Rows of one forward pass on one rank, at most.
        max_grad_norm: Largest global gradient norm; `None` does not clip.
        precision: `auto` takes bf16 where the device has it.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        log_every: Steps between two logged records.
    """

    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    max_steps: Positive | None
    global_batch_size: Positive
    micro_batch_size: Positive
    max_grad_norm: PositiveFloat | None
    precision: Literal["auto", "fp32", "bf16"]
    gradient_checkpointing: bool
    log_every: Positive


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """When to stop before the end.

    Attributes:
        metric: `mean` of all tasks' validation losses, their `worst`, or a task's name. It is what a sweep
            minimizes. Or `pass@1`, the mean of all `EvaluationConfig.benchmarks`, or `pass@1/NAME`: then the
            highest is the best, and a sweep minimizes what it lacks to 1.
        patience: Evaluations, or scorings, without a better `metric` before the run ends; `None` never does.
        min_delta: What counts as better, in nats, or as a share of problems.
        per_task: Evaluations without a better loss of a task before it is frozen; `None` freezes none.
        rollback: When a task is frozen, model and optimizer go back to its best checkpoint.
    """

    metric: str
    patience: Positive | None
    min_delta: Annotated[float, Field(ge=0)]
    per_task: Positive | None
    rollback: bool


@dataclass(frozen=True)
class PruningConfig:
    """When a job of a sweep ends for being behind the others at the same step.

    Attributes:
        siblings: How many others must have got as far; `None` ends none.
        warmup: Steps before which none is ended.
        metric: `mean` of all tasks' validation losses, their `worst`, `any` of them, or a task's name.
    """

    siblings: Positive | None = None
    warmup: Natural = 0
    metric: str = "mean"


@dataclass(frozen=True)
class ScoringConfig:
    """How the model in training is scored on `EvaluationConfig.benchmarks`.

    Attributes:
        every: Optimizer steps between two scorings, from the untrained model on; `None`: at the end only.
        problems: So many of each benchmark, from the first on; `None` takes all.
        max_new_tokens: Longest answer.
        style: How the model is asked; `auto` takes the run's template.
        data: Folder of the benchmarks, or `hub`; `None` takes what is installed.
        batch_size: Answers that a rank generates at once.
    """

    every: Positive | None = None
    problems: Positive | None = 20
    max_new_tokens: Positive = 256
    style: str = "auto"
    data: str | None = None
    batch_size: Positive = 16


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation on all validation data, every `every` steps (`None`: at the end only).

    Attributes:
        every: Optimizer steps between two.
        batch_size: Rows of one forward pass on one rank.
        early_stopping: When the run ends early.
        pruning: When a job of a sweep does.
        benchmarks: Names of benchmarks of code, and of sets of them, that the model in training is scored on.
        scoring: How.
    """

    every: Positive | None
    batch_size: Positive
    early_stopping: EarlyStoppingConfig
    pruning: PruningConfig = field(default_factory=PruningConfig)
    benchmarks: list[str] = field(default_factory=list)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)


@dataclass(frozen=True)
class ProbeConfig:
    """Small validation batches that hold every task.

    Attributes:
        interval: Steps from one probe to the next; `None` probes before each step where the weighting watches
            the probe, and never elsewhere.
        tokens_per_task: Tokens of each task in a probe, at most, as long as one sample has no more.
    """

    interval: Positive | None
    tokens_per_task: Positive


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and which checkpoints to keep.

    Attributes:
        every_steps: Optimizer steps between two checkpoints; `None` does not count steps.
        every_minutes: Minutes between two checkpoints; `None` does not look at the clock.
        every_epoch: Save at every epoch's end; these are never removed.
        keep_last: How many of the newest to keep.
        keep_best: Keep the one of the best evaluation.
        export_best: The final model is that of the best evaluation instead of the last step.
        asynchronous: Train on while a copy in the host's memory is written.
        export: Put the model, or the adapter, into every checkpoint in the form of the final one, too.
        allow_changed_config: Resume although keys changed that alter the course of training.
    """

    every_steps: Positive | None
    every_minutes: PositiveFloat | None
    every_epoch: bool
    keep_last: Positive
    keep_best: bool
    export_best: bool
    asynchronous: bool
    export: bool
    allow_changed_config: bool


@dataclass(frozen=True)
class TaskConfig:
    """One task: files, a dataset of the Hugging Face `datasets` library, or a `source` that makes samples.

    Attributes:
        path: A file, a folder or a glob.
        dataset: Id on the hub, or folder of a saved dataset, instead of `path`.
        source: A `_target_` config, instead of both.
        format: Format of every sample; `None` recognises it line by line.
        columns: Names that records have for keys of formats, by these keys.
        valid_path: A path for validation; `None` splits some off the training data.
        subset: Which configuration of the dataset.
        split: Which split of the dataset; `None` takes `train`.
        valid_split: A split of the dataset for validation.
        revision: Branch, tag or commit of the dataset.
        max_samples: Take at most this many.
        shard_samples: Take so many for each shard; `None` takes as many as `DataConfig.shard_samples`.
    """

    path: str | None = None
    dataset: str | None = None
    source: dict[str, Any] | None = None
    format: str | None = None
    columns: dict[str, str] | None = None
    valid_path: str | None = None
    subset: str | None = None
    split: str | None = None
    valid_split: str | None = None
    revision: str | None = None
    max_samples: Positive | None = None
    shard_samples: Positive | None = None


@dataclass(frozen=True)
class DataConfig:
    """The tasks and how their samples become training and validation rows.

    Attributes:
        tasks: Name → task.
        paths: More tasks, each named by the last part of its path, without a file's ending.
        fallback: Tasks used when neither of the two names any.
        tokenized: Folder that `job=tokenize` wrote, instead of all these tasks.
        cache_dir: Where tokens are kept, for all runs; `None` takes $MFTRUN_CACHE, or ~/.cache/mftrun.
        num_workers: Processes that tokenize; `None` takes as many as there are CPU cores.
        max_length: Most tokens in a row, and so in a sample.
        on_overlong: What happens to a longer sample.
        on_bad: What happens to a malformed line.
        valid_fraction: Share of each task split off for validation where it has no `valid_path`.
        valid_max: At most so many samples of a task.
        valid_min: At least so many samples of a task.
        shard_samples: Train on shards of so many samples of each task, made while the run goes on; `None`
            tokenizes everything before.
    """

    max_length: Positive
    on_overlong: Literal["error", "skip", "truncate"]
    on_bad: Literal["error", "skip"]
    valid_fraction: Annotated[float, Field(ge=0, lt=1)]
    valid_max: Natural
    valid_min: Natural
    tokenized: str | None
    cache_dir: str | None
    num_workers: Positive | None
    shard_samples: Positive | None
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    fallback: dict[str, TaskConfig] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """The whole config, its scalar groups typed. The groups of objects stay plain mappings, for `build`.

    Attributes:
        objects: Group → its `_target_` config, for every group of `OBJECTS`.
        tracker: Name → `_target_` config, or `None` for one that is left out.
        allowed_targets: Module prefixes that `_target_` may name besides mftrun's own list.
    """

    name: str
    seed: int
    output_dir: str | None
    resume: str | None
    rerun: str | None
    allowed_targets: list[str]
    train: TrainConfig
    evaluation: EvaluationConfig
    probe: ProbeConfig
    checkpoint: CheckpointConfig
    data: DataConfig
    tracker: dict[str, dict[str, Any] | None]
    objects: dict[str, dict[str, Any]]

    @staticmethod
    def from_dict(cfg: Mapping[str, Any]) -> RunConfig:
        """Types a resolved config.

        Raises:
            ConfigError: A key is unknown or missing, or a value has the wrong type or range.
        """
        _check_keys(without_shorthands(cfg), dict.fromkeys(_ROOT, True), "")
        values = {key: _typed(type_, cfg[key], key) for key, type_ in _TYPES.items()}
        return RunConfig(**values, objects={key: _object(cfg[key], key) for key in OBJECTS})


_TYPES: dict[str, Any] = {
    "name": Annotated[str, Field(min_length=1)],
    "seed": Annotated[int, Field(ge=0, lt=2**31)],
    "output_dir": str | None,
    "resume": str | None,
    "rerun": str | None,
    "allowed_targets": list[str],
    "train": TrainConfig,
    "evaluation": EvaluationConfig,
    "probe": ProbeConfig,
    "checkpoint": CheckpointConfig,
    "data": DataConfig,
    "tracker": dict[str, dict[str, Any] | None],
}
_ROOT = (*_TYPES, *OBJECTS)
_ENDING = re.compile(r"\.(jsonl|json|parquet)(\.(gz|zst))?$")
# What the program adds to `_partial_` objects, by group.
_RUNTIME: dict[str, tuple[str, ...]] = {"loss": ("tasks",), "sampler": ("tasks",)}


def check(cfg: Mapping[str, Any]) -> RunConfig:
    """Checks a resolved config before anything is loaded: keys, types, ranges, targets, combinations.

    Returns:
        The typed config.

    Raises:
        ConfigError: Names the key, and the nearest right one where that helps.
    """
    config = RunConfig.from_dict(cfg)
    tasks = task_configs(config.data)
    _check_combinations(config, tasks)
    for key in (*OBJECTS, "tracker", "data"):
        runtime = _RUNTIME.get(key, ()) if cfg[key].get("_partial_", False) else ()
        check_node(cfg[key], key, config.allowed_targets, runtime)
    return config


def without_shorthands(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved config without the keys that its job has taken from the root.

    An option of `job` may put keys of its own at the root, so that users write `output=DIR` for
    `job.output=DIR`. A saved config says it once.
    """
    job = cfg.get("job")
    own = job.keys() if isinstance(job, Mapping) else ()
    return {key: value for key, value in cfg.items() if key in _ROOT or key not in own}


def task_configs(data: DataConfig) -> dict[str, TaskConfig]:
    """The tasks of a run: `tasks`, then `paths`, or `fallback` when both are empty.

    A task of `paths` may have settings in `tasks`, which then names no place.

    Raises:
        ConfigError: Two tasks have one name, a task has no source or two, or there is no task at all.
    """
    named = {**data.tasks, **_from_paths(data)}
    if data.tokenized is not None:
        return _tokenized(data.tokenized, named)
    tasks = named or data.fallback
    if not tasks:
        raise ConfigError(
            "data.tasks", "there is no task; write data.tasks.NAME.path=DIR for each, or data.paths=[DIR,…]"
        )
    where = "data.tasks" if tasks is not data.fallback else "data.fallback"
    for name, task in tasks.items():
        _check_task(task, f"{where}.{name}")
    return tasks


def _from_paths(data: DataConfig) -> dict[str, TaskConfig]:
    found: dict[str, TaskConfig] = {}
    for path in data.paths:
        name = _task_name(path)
        if not name:
            raise ConfigError("data.paths", f"{path!r} has no part to name its task by")
        settings = data.tasks.get(name, TaskConfig())
        other = found.get(name) or (settings if _origins(settings) else None)
        if other is not None:
            raise ConfigError(
                "data.paths",
                f"two tasks are named {name}: {other.path or 'data.tasks.' + name} and {path}; "
                "name one yourself with data.tasks.NAME.path=DIR",
            )
        found[name] = dataclasses.replace(settings, path=path)
    return found


def _task_name(path: str) -> str:
    """The last part of a path that is no pattern, without the ending of a file: a name fit for a key."""
    plain = [part for part in Path(path).parts if not set(part) & set("*?[")]
    name = Path(plain[-1]).name if plain else ""
    return _ENDING.sub("", name)


def _tokenized(folder: str, named: Mapping[str, TaskConfig]) -> dict[str, TaskConfig]:
    if named:
        raise ConfigError(
            "data.tokenized", f"the tasks are those of {folder}; leave out data.tasks and data.paths"
        )
    return {name: TaskConfig() for name in tokenized_tasks(Path(folder).expanduser())}


_ORIGINS = ("path", "dataset", "source")
_OF_DATASETS = ("subset", "split", "valid_split", "revision")


def _origins(task: TaskConfig) -> list[str]:
    """The keys that say where its samples are."""
    return [name for name in _ORIGINS if getattr(task, name) is not None]


def _check_task(task: TaskConfig, key: str) -> None:
    given = _origins(task)
    if len(given) != 1:
        has = f"has {' and '.join(given)}" if given else "says not where its samples are"
        raise ConfigError(f"{key}.path", f"the task {has}; give one of {', '.join(_ORIGINS)}")
    for name in _OF_DATASETS:
        if getattr(task, name) is not None and task.dataset is None:
            raise ConfigError(f"{key}.{name}", f"acts with {key}.dataset only, which is not given")
    for name in ("format", "columns"):
        if getattr(task, name) is not None and task.source is not None:
            raise ConfigError(f"{key}.{name}", f"does not act on {key}.source, which makes samples itself")
    if task.valid_split is not None and task.valid_path is not None:
        raise ConfigError(f"{key}.valid_path", f"{key}.valid_split is given, too; give one of them")
    if task.source is not None and not is_target(task.source):
        raise ConfigError(f"{key}.source", "needs a _target_, the class that reads or makes the samples")


def _check_combinations(config: RunConfig, tasks: Mapping[str, TaskConfig]) -> None:
    stopping = config.evaluation.early_stopping
    if config.train.epochs is None and config.train.max_steps is None:
        raise ConfigError("train.max_steps", "is null, and so is train.epochs: the run would never end")
    scores = _check_scoring(config)
    _check_patience(config, tasks, watches_score=stopping.metric in scores)
    _check_freezing(config, tasks)
    if config.checkpoint.export_best and not config.checkpoint.keep_best:
        raise ConfigError("checkpoint.export_best", "needs checkpoint.keep_best=true")
    _check_metric("evaluation.early_stopping.metric", stopping.metric, (*_TOGETHER, *scores), tasks)
    _check_pruning(config, tasks)
    if config.data.valid_min > config.data.valid_max:
        raise ConfigError("data.valid_min", f"is above data.valid_max={config.data.valid_max}")
    for name in (*_TOGETHER, _ANY):
        if name in tasks:
            raise ConfigError(
                f"data.tasks.{name}", f"{name} stands for all tasks together; give the task another name"
            )
    _check_shards(config, tasks)
    _check_names(config.objects["loss"], tasks)


def _check_scoring(config: RunConfig) -> list[str]:
    """What may be watched of benchmarks."""
    evaluation = config.evaluation
    key, metric = "evaluation.early_stopping.metric", evaluation.early_stopping.metric
    if not evaluation.benchmarks:
        if metric == PASS or metric.startswith(f"{PASS}/"):
            raise ConfigError(
                key, f"{metric} needs benchmarks; name some, as in evaluation.benchmarks=[humaneval]"
            )
        if evaluation.scoring.every is not None:
            raise ConfigError(
                "evaluation.scoring.every",
                "acts on evaluation.benchmarks only; name some, as in evaluation.benchmarks=[humaneval]",
            )
        return []
    from mftrun.benchmarks.registry import find

    try:
        return metrics_of([one.name for one in find(evaluation.benchmarks)])
    except ConfigError as error:
        raise ConfigError("evaluation.benchmarks", error.message) from error


def _check_patience(config: RunConfig, tasks: Mapping[str, TaskConfig], *, watches_score: bool) -> None:
    evaluation = config.evaluation
    if evaluation.early_stopping.patience is None:
        return
    if watches_score:
        if evaluation.scoring.every is None:
            raise ConfigError(
                "evaluation.scoring.every", "early stopping needs scores; give the steps between two"
            )
        return
    if evaluation.every is None:
        raise ConfigError("evaluation.every", "early stopping needs evaluations; give the steps between two")
    if not _validates(config.data, tasks):
        raise ConfigError(
            "evaluation.early_stopping.patience",
            "there is no validation data to watch; raise data.valid_fraction",
        )


def _check_metric(key: str, metric: str, known: Sequence[str], tasks: Mapping[str, TaskConfig]) -> None:
    if metric not in (*known, *tasks):
        problem = f"{metric} is neither {', '.join(known)} nor a task"
        raise ConfigError(key, unknown(metric, [*known, *tasks], problem))


def _check_pruning(config: RunConfig, tasks: Mapping[str, TaskConfig]) -> None:
    pruning = config.evaluation.pruning
    _check_metric("evaluation.pruning.metric", pruning.metric, (*_TOGETHER, _ANY), tasks)
    if pruning.siblings is None:
        return
    if config.evaluation.every is None:
        raise ConfigError("evaluation.every", "pruning needs evaluations; give the steps between two")
    if not _validates(config.data, tasks):
        raise ConfigError(
            "evaluation.pruning.siblings", "there is no validation data to compare; raise data.valid_fraction"
        )


def _check_freezing(config: RunConfig, tasks: Mapping[str, TaskConfig]) -> None:
    stopping = config.evaluation.early_stopping
    key = "evaluation.early_stopping"
    if stopping.per_task is None:
        if stopping.rollback:
            raise ConfigError(
                f"{key}.rollback", f"acts when a task is frozen; give {key}.per_task, the evaluations to wait"
            )
        return
    if config.evaluation.every is None:
        raise ConfigError("evaluation.every", "freezing tasks needs evaluations; give the steps between two")
    if not _validates(config.data, tasks):
        raise ConfigError(
            f"{key}.per_task", "there is no validation data to watch; raise data.valid_fraction"
        )
    if stopping.rollback and not config.checkpoint.keep_best:
        raise ConfigError(f"{key}.rollback", "needs checkpoint.keep_best=true: it goes back to those")


def _check_shards(config: RunConfig, tasks: Mapping[str, TaskConfig]) -> None:
    data, train = config.data, config.train
    if data.shard_samples is None:
        for name, task in tasks.items():
            if task.shard_samples is not None:
                raise ConfigError(f"data.tasks.{name}.shard_samples", "acts with data.shard_samples only")
        return
    if train.epochs is not None:
        raise ConfigError(
            "train.epochs",
            "has no meaning with data.shard_samples, as nobody knows how large the data is; give the length "
            "of the run with train.epochs=null train.max_steps=N",
        )
    if data.tokenized is not None:
        raise ConfigError("data.tokenized", "is tokenized already, and needs no data.shard_samples")
    if data.cache_dir is not None:
        raise ConfigError(
            "data.cache_dir", "is not used with data.shard_samples: shards lie in the run's folder"
        )
    for name, task in tasks.items():
        if task.max_samples is not None:
            raise ConfigError(
                f"data.tasks.{name}.max_samples",
                f"cannot choose from a stream; data.tasks.{name}.shard_samples says how many come at a time",
            )


def _validates(data: DataConfig, tasks: Mapping[str, TaskConfig]) -> bool:
    splits = data.valid_fraction > 0 and data.valid_max > 0
    return splits or any(
        task.valid_path is not None or task.valid_split is not None for task in tasks.values()
    )


# What a metric may say instead of a task's name, and what pruning may say besides.
_TOGETHER = ("mean", "worst")
_ANY = "any"

# Settings of a loss by task name.
_BY_TASK = (("weighting", "weights"), ("weighting", "references"), ("token_loss", "alpha"))


def _check_names(loss: Mapping[str, Any], tasks: Mapping[str, TaskConfig]) -> None:
    for part, setting in _BY_TASK:
        node = loss.get(part)
        named = node.get(setting) if isinstance(node, Mapping) else None
        for name in named if isinstance(named, Mapping) else ():
            if name not in tasks:
                key = f"loss.{part}.{setting}"
                raise ConfigError(
                    f"{key}.{name}", unknown(name, tasks, f"there is no task {name}", prefix=key)
                )


def _object(node: Any, key: str) -> dict[str, Any]:
    if not is_target(node):
        raise ConfigError(key, f"needs one of its options ({key}=NAME), or a config with a _target_")
    return dict(node)


def _check_keys(node: Mapping[str, Any], known: Mapping[str, bool], key: str) -> None:
    """Refuses keys that are not known, and asks for those that are required."""
    dot = f"{key}." if key else ""
    for name in node:
        if name not in known:
            if (other := meant(str(name))) is not None:
                raise ConfigError(f"{dot}{name}", other)
            raise ConfigError(f"{dot}{name}", unknown(str(name), known, "there is no such key", prefix=key))
    for name, required in known.items():
        if required and name not in node:
            raise ConfigError(f"{dot}{name}", "is missing from the config")


def _typed(type_: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(type_):
        return _section(type_, value, key)
    if type_ == dict[str, TaskConfig]:
        entries = check_value(value, dict[str, Any], key)
        return {name: _section(TaskConfig, entry, f"{key}.{name}") for name, entry in entries.items()}
    return check_value(value, type_, key)


def _section(type_: Any, value: Any, key: str) -> Any:
    """A dataclass from a mapping that has its keys and no others."""
    fields = dataclasses.fields(type_)
    if not isinstance(value, Mapping):
        raise ConfigError(key, f"needs keys ({', '.join(one.name for one in fields)}), not {value!r}")
    _check_keys(value, {one.name: _is_required(one) for one in fields}, key)
    hints = get_type_hints(type_, include_extras=True)
    return type_(**{name: _typed(hints[name], entry, f"{key}.{name}") for name, entry in value.items()})


def _is_required(one: dataclasses.Field[Any]) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
