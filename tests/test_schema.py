"""Scalar groups: types, ranges, combinations; and the tasks of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mftrun.compose import compose
from mftrun.errors import ConfigError
from mftrun.schema import DataConfig, RunConfig, TaskConfig, check, task_configs


@pytest.fixture
def config() -> dict[str, Any]:
    return compose(["data.tasks.code.path=tasks/code", "data.tasks.text.path=tasks/text"])


def change(config: dict[str, Any], path: str, value: Any) -> None:
    *owners, key = path.split(".")
    for owner in owners:
        config = config[owner]
    config[key] = value


def test_types_every_scalar_group(config: dict[str, Any]) -> None:
    run = RunConfig.from_dict(config)
    assert run.train.max_grad_norm == 1.0
    assert run.evaluation.early_stopping.metric == "mean"
    assert run.checkpoint.keep_last == 2
    assert run.data.tasks["code"] == TaskConfig(path=str(Path("tasks/code").absolute()))
    assert run.objects["optimizer"]["lr"] == config["optimizer"]["lr"]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("train.max_step", 3, "did you mean train.max_steps?"),
        ("evaluation.early_stopping.patiense", 3, "did you mean evaluation.early_stopping.patience?"),
        ("data.tasks.code.pth", "x", "did you mean data.tasks.code.path?"),
        ("checkpont", {}, "did you mean checkpoint?"),
        ("train.max_steps", "3", "integer, not '3'"),
        ("train.max_steps", 0, "greater than 0, not 0"),
        ("train.global_batch_size", 1.5, "integer"),
        ("train.gradient_checkpointing", 1, "boolean"),
        ("train.precision", "fp8", "'auto', 'fp32' or 'bf16'"),
        ("data.on_overlong", "drop", "'error', 'skip' or 'truncate'"),
        ("data.valid_fraction", 1.0, "less than 1"),
        ("data.paths", "tasks", "array"),
        ("data.tasks.code", "tasks/code", "needs keys (path"),
        ("data.tasks.code.max_samples", -1, "greater than 0"),
        ("seed", -1, "greater than or equal to 0"),
        ("name", "", "at least 1 character"),
        ("allowed_targets", [1], "string"),
        ("tracker.console", 3, "object"),
        ("optimizer.lr", "fast", "number, not 'fast'"),
        ("optimizer.learning_rate", 1.0, "does not take it"),
        ("optimizer.betas", [0.9], "Field required"),
        ("loss.weighting.weights.code", "much", "number"),
        ("loss.weighting.weights.cod", 1.0, "did you mean loss.weighting.weights.code?"),
        ("evaluation.early_stopping.metric", "cods", "did you mean code?"),
        ("peft", None, "one of its options"),
    ],
)
def test_refusals_name_the_key(config: dict[str, Any], path: str, value: Any, words: str) -> None:
    change(config, path, value)
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert caught.value.key.startswith(path)
    assert words in caught.value.message


def test_a_missing_key_is_named(config: dict[str, Any]) -> None:
    del config["train"]["epochs"]
    with pytest.raises(ConfigError, match=r"train\.epochs: is missing"):
        check(config)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"train.epochs": None, "train.max_steps": None}, "train.max_steps"),
        ({"evaluation.every": None, "evaluation.early_stopping.patience": 3}, "evaluation.every"),
        ({"data.valid_min": 5, "data.valid_max": 4}, "data.valid_min"),
        ({"data.tasks.code.source": {"_target_": "mftrun.data.files.Files"}}, "data.tasks.code.path"),
        ({"data.tasks.code.path": None}, "data.tasks.code.path"),
        ({"data.tasks.code": {"source": {"path": "x"}}}, "data.tasks.code.source"),
    ],
)
def test_impossible_combinations_are_refused(
    config: dict[str, Any], changes: dict[str, Any], key: str
) -> None:
    for path, value in changes.items():
        change(config, path, value)
    with pytest.raises(ConfigError) as caught:
        check(config)
    assert caught.value.key == key


def test_early_stopping_may_watch_a_task(config: dict[str, Any]) -> None:
    change(config, "evaluation.early_stopping.metric", "code")
    change(config, "evaluation.early_stopping.patience", 2)
    assert check(config).evaluation.early_stopping.metric == "code"


def data(**values: Any) -> DataConfig:
    rest = {"on_overlong": "error", "on_bad": "error", "valid_fraction": 0.1, "valid_max": 9, "valid_min": 1}
    places = {"tokenized": None, "cache_dir": None, "num_workers": None, "shard_samples": None}
    return DataConfig(max_length=8, **rest, **places, **values)


FALLBACK = {"own": TaskConfig(source={"_target_": "mftrun.data.embedded.WriteFunction"})}


def test_paths_are_named_by_their_last_component_and_follow_the_tasks() -> None:
    tasks = task_configs(
        data(tasks={"z": TaskConfig(path="/x")}, paths=["/a/code/", "/a/text"], fallback=FALLBACK)
    )
    assert {name: task.path for name, task in tasks.items()} == {
        "z": "/x",
        "code": "/a/code/",
        "text": "/a/text",
    }


def test_a_task_of_the_paths_may_have_settings() -> None:
    tasks = task_configs(data(tasks={"code": TaskConfig(max_samples=5)}, paths=["/a/text", "/a/code"]))
    assert tasks["code"] == TaskConfig(path="/a/code", max_samples=5)
    assert tasks["text"] == TaskConfig(path="/a/text")


def test_fallback_is_used_only_when_nothing_is_given() -> None:
    assert list(task_configs(data(fallback=FALLBACK))) == ["own"]
    assert list(task_configs(data(fallback=FALLBACK, paths=["/a/code"]))) == ["code"]


def test_no_task_at_all_says_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r"data\.tasks: .*data\.tasks\.NAME\.path=DIR"):
        task_configs(data())


@pytest.mark.parametrize(
    "values",
    [
        {"paths": ["/a/code", "/b/code"]},
        {"tasks": {"code": TaskConfig(path="/a/code")}, "paths": ["/b/code"]},
    ],
)
def test_two_tasks_of_one_name_are_refused_with_both_paths(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        task_configs(data(**values))
    assert "/a/code" in caught.value.message
    assert "/b/code" in caught.value.message


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/code/", "code"),
        ("/a/code.jsonl", "code"),
        ("code.v2.json.gz", "code.v2"),
        ("/a/code/*.jsonl", "code"),
        ("/a/code/**/part-?.parquet", "code"),
        ("~/my.tasks", "my.tasks"),
    ],
)
def test_paths_name_tasks_without_endings_and_patterns(path: str, name: str) -> None:
    assert list(task_configs(data(paths=[path]))) == [name]


def test_a_pattern_alone_names_no_task() -> None:
    with pytest.raises(ConfigError, match=r"data\.paths: '\*\.jsonl' has no part to name its task by"):
        task_configs(data(paths=["*.jsonl"]))
