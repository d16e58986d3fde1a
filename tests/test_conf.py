"""Every option of every group composes, and every target in it exists and takes its keys."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_object

from mftrun.compose import compose
from mftrun.paths import resource_dir
from mftrun.schema import check, task_configs

CONF = resource_dir("conf")
FILES = sorted(path for path in CONF.rglob("*.yaml") if "hydra" not in path.relative_to(CONF).parts)
OPTIONS = [f"{path.parent.relative_to(CONF)}={path.stem}" for path in FILES if path.parent != CONF]


def required_values(option: str, folder: Path) -> list[str]:
    """What a user must give with an option."""
    group, _, name = option.partition("=")
    needed = (CONF / group / f"{name}.yaml").read_text().splitlines()
    keys = [line.partition(":")[0] for line in needed if re.match(r"\w+: \?\?\?", line)]
    # A job has such keys at the root.
    values = [f"{key}={folder}" if group == "job" else f"{group}.{key}={folder}" for key in keys]
    return [*values, f"data.tasks.mine.path={folder}"] if option == "data=files" else values


def targets(node: Any) -> list[dict[str, Any]]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    below = [found for child in children for found in targets(child)]
    return [node, *below] if isinstance(node, dict) and "_target_" in node else below


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes_and_passes_the_check(option: str, tmp_path: Path) -> None:
    # Part of every option of `distributed`, not a choice of its own.
    chosen = option.replace("machines=", "machines@distributed=")
    if option.startswith(("sweep=", "cluster=")):
        chosen = f"+{option}"  # no part of the default
    # And one that only a single job has.
    around = ["job=generate", *required_values("job=generate", tmp_path)] if "job/" in option else []
    check(compose([*around, chosen, *required_values(option, tmp_path)]))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_targets_exist_and_take_their_keys(path: Path) -> None:
    for node in targets(yaml.safe_load(path.read_text())):
        keys = {key: value for key, value in node.items() if key not in ("_target_", "_partial_", "defaults")}
        signature = inspect.signature(get_object(node["_target_"]))
        signature.bind_partial(**keys)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_file_says_what_it_is_for(path: Path) -> None:
    lines = path.read_text().splitlines()
    about = next(line for line in lines if not line.startswith("# @package"))
    assert about.startswith("# ")
    assert len(about) > 20


def test_plain_run_uses_the_embedded_tasks() -> None:
    config = check(compose())
    assert list(task_configs(config.data)) == ["write_function", "write_docstring", "complete_function"]


def test_a_pretrained_model_brings_values_fit_for_it(tmp_path: Path) -> None:
    tiny = compose()
    real = compose(["model=llama", f"model.path={tmp_path}", f"data.tasks.mine.path={tmp_path}", "peft=lora"])
    assert real["optimizer"]["lr"] < tiny["optimizer"]["lr"]
    assert real["data"]["max_length"] >= 2048
    assert list(task_configs(check(real).data)) == ["mine"]
    assert "recommended" not in real


def test_an_override_wins_over_the_recommended_value() -> None:
    assert compose(["optimizer.lr=0.5"])["optimizer"]["lr"] == 0.5


def test_an_experiment_wins_over_the_groups() -> None:
    assert compose(["experiment=quick"])["train"]["max_steps"] == 20


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_experiments_state_deltas_only(name: str) -> None:
    stated = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
    choices = [choice for entry in stated.pop("defaults", []) for choice in entry.items()]
    plain = compose([f"{group.removeprefix('override /')}={option}" for group, option in choices])
    changed = compose([f"experiment={name}"])
    for path, value in _leaves(stated):
        assert _get(plain, path) != value, f"{'.'.join(path)} only repeats the default"
        assert _get(changed, path) == value


def _leaves(node: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for key, value in node.items():
        found += _leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]
    return found


def _get(node: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        node = node[key]
    return node


def test_the_default_options_build_what_the_job_expects() -> None:
    from mftrun.jobs.preparation import check_parts

    check_parts(check(compose(["tracker=local"])))
