"""distributed=auto: puts the strategy that fits in its place, before anything else looks there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mftrun.paths import resource_dir

if TYPE_CHECKING:
    from mftrun.schema import RunConfig

log = logging.getLogger(__name__)

_TARGET = "mftrun.distributed.auto.Auto"


def settled(config: Mapping[str, Any], typed: RunConfig) -> dict[str, Any]:
    """The configuration, with the chosen strategy for ``distributed=auto``; any other as it is.

    Args:
        config: The resolved configuration.
        typed: The same, checked.

    Raises:
        ConfigError: The model's sizes cannot be had.
    """
    if config["distributed"].get("_target_") != _TARGET:
        return dict(config)
    from mftrun.jobs.described import choose_strategy
    from mftrun.jobs.preparation import build_group

    strategy = build_group(typed, "distributed")
    devices, memory = _devices(config["job"], strategy)
    choice = choose_strategy(typed, devices, memory, strategy)
    log.info("distributed=auto takes %s: %s", choice.strategy, choice.reason)
    return {**config, "distributed": _option(choice.strategy, config["distributed"])}


def _devices(job: Mapping[str, Any], strategy: Any) -> tuple[int, int]:
    """GPUs of all machines, and bytes of the smallest: those here, or those that job=plan is asked about."""
    from mftrun.distributed.machines import gpu_memory
    from mftrun.jobs.plan import memory_size

    planned = job.get("device_memory")
    memory = (gpu_memory() or 0) if planned is None else memory_size(planned)
    number = strategy.processes() * strategy.num_nodes if memory else 0
    return int(job.get("devices") or number), memory


def _option(name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The option of that name, on the machines that were asked for."""
    from mftrun.distributed.auto import machine_keys

    return {**_composed(name), **{key: asked[key] for key in machine_keys()}}


def _composed(name: str) -> dict[str, Any]:
    """The values of an option and of those it builds on."""
    from omegaconf import OmegaConf

    file = resource_dir("conf") / "distributed" / f"{name}.yaml"
    loaded: Any = OmegaConf.to_container(OmegaConf.load(file))
    values: dict[str, Any] = {}
    for base in loaded.pop("defaults", []):
        if isinstance(base, str) and base != "_self_":
            values.update(_composed(base))
    return {**values, **loaded}
