"""`rerun=RUN`: the configuration of an earlier run, with this command line's values on top."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mftrun.errors import ConfigError
from mftrun.paths import CONFIG_FILE

_NAME = "rerun"
# Mappings in which any name may be added, as in the original configs.
_OPEN = (
    "data.tasks",
    "loss.token_loss.alpha",
    "loss.weighting.references",
    "loss.weighting.weights",
    "sampler.repeats",
    "sampler.weights",
)


def config_name(arguments: Sequence[str]) -> str:
    """Name of the primary config: our root, or with `rerun=RUN` that run's own config, made known to Hydra.

    Raises:
        ConfigError: RUN has no readable config.
    """
    run = _asked_run(arguments)
    if run is None:
        return "config"
    config = _load(run)
    settings = [
        "hydra_settings",
        *(f"/open_mapping@{path}" for path in _OPEN if _has(config, path)),
        "_self_",
    ]
    # A new directory and a start from the beginning, unless this command line says otherwise.
    fresh = {"output_dir": None, "resume": None}
    ConfigStore.instance().store(_NAME, {"defaults": settings, **config, **fresh})
    return _NAME


def _asked_run(arguments: Sequence[str]) -> Path | None:
    asked = [argument for argument in arguments if argument.startswith(f"{_NAME}=")]
    if not asked:
        return None
    override = OverridesParser.create().parse_override(asked[-1])
    if override.is_sweep_override():
        raise ConfigError(_NAME, "takes one run at a time, not several")
    value = override.value()
    return None if value is None else Path(str(value)).expanduser()


def _load(run: Path) -> dict[str, Any]:
    path = run / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(_NAME, f"{run} is not the directory of a run: there is no {path}")
    try:
        config = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(_NAME, f"cannot read {path}: {error}") from error
    if not isinstance(config, dict) or "job" not in config:
        raise ConfigError(_NAME, f"{path} does not hold the configuration of a run")
    return {str(key): value for key, value in config.items()}


def _has(config: dict[str, Any], path: str) -> bool:
    node: Any = config
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return isinstance(node, dict)
