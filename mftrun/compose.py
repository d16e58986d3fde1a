"""From Hydra's composed config to the plain dict that a job gets, and composing without the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from mftrun import hydra_plugin
from mftrun.errors import ConfigError
from mftrun.paths import resource_dir


def compose(overrides: Sequence[str] = (), run_dir: Path | None = None) -> dict[str, Any]:
    """The resolved config of a command line, unchecked and without running anything.

    Args:
        overrides: What one would write on the command line.
        run_dir: Directory of the run, kept as `output_dir`.

    Raises:
        ConfigError: A key that needs a value has none.
        hydra.errors.HydraException: The overrides do not fit the configs.
    """
    return resolved(compose_config(overrides), run_dir)


def compose_config(
    overrides: Sequence[str] = (), config_name: str = "config", *, with_hydra: bool = False
) -> DictConfig:
    """Hydra's composed config, with its interpolations.

    Args:
        overrides: What one would write on the command line.
        config_name: The primary config.
        with_hydra: Whether Hydra's own part belongs to it.
    """
    hydra_plugin.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(resource_dir("conf"))):
        cfg: DictConfig = hydra_compose(config_name, list(overrides), return_hydra_config=with_hydra)
    return cfg


def resolved(cfg: DictConfig, run_dir: Path | None = None) -> dict[str, Any]:
    """Plain containers, every value in place, the user's relative paths made absolute.

    Args:
        cfg: The composed config, without Hydra's own part.
        run_dir: Directory of the run, kept as `output_dir`.

    Raises:
        ConfigError: A key that needs a value has none.
    """
    # Those at the root first: a job takes its own from there.
    missing = sorted(str(key) for key in cfg if OmegaConf.is_missing(cfg, key)) or sorted(
        OmegaConf.missing_keys(cfg)
    )
    if missing:
        raise ConfigError(missing[0], f"needs a value: {missing[0]}=VALUE")
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    config.pop("recommended", None)  # its values are where they were asked for
    if run_dir is not None:
        config["output_dir"] = str(run_dir)
    _make_absolute(config)
    return {str(key): value for key, value in config.items()}


def _make_absolute(config: dict[Any, Any]) -> None:
    """A saved config must mean the same from any folder. What is not a string is left to the schema."""
    if config.get("resume") != "auto":
        _absolute(config, ["resume"])
    _absolute(config, ["rerun"])
    data = config.get("data")
    if isinstance(data, dict):
        paths = data.get("paths")
        if isinstance(paths, list):
            _absolute(paths, range(len(paths)))
        for group in ("tasks", "fallback"):
            for task in (data.get(group) or {}).values():
                _absolute(task, ["path", "valid_path"])
    scoring = (config.get("evaluation") or {}).get("scoring")
    if isinstance(scoring, dict) and scoring.get("data") != "hub":
        _absolute(scoring, ["data"])
    # Elsewhere a model's path may be a name that is not a folder.
    model = config.get("model")
    path = model.get("path") if isinstance(model, dict) else None
    if isinstance(path, str) and Path(path).expanduser().exists():
        _absolute(model, ["path"])


def _absolute(owner: Any, keys: Iterable[Any]) -> None:
    for key in keys if isinstance(owner, dict | list) else ():
        value = owner.get(key) if isinstance(owner, dict) else owner[key]
        if isinstance(value, str):
            owner[key] = str(Path(value).expanduser().absolute())
