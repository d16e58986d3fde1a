"""Which template a prompt is rendered with: the one asked for, the run's own, or the tokenizer's."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from mftrun.build import build
from mftrun.data.template import ModelTemplate, Template
from mftrun.errors import ConfigError
from mftrun.paths import CONFIG_FILE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mftrun.generation.place import Place

_log = logging.getLogger(__name__)

_GROUP = "template"


class Asked(NamedTuple):
    """What a command line says of the template.

    Attributes:
        node: The `_target_` config of the one that it names; None where it names none.
        changes: Values of keys below `template` that it sets without naming one.
    """

    node: Mapping[str, Any] | None = None
    changes: Mapping[str, Any] = MappingProxyType({})


def choose_template(
    asked: Asked, place: Place, tokenizer: PreTrainedTokenizerFast, allowed: Sequence[str] = ()
) -> Template:
    """The template of a generation, and a line in the log about it.

    Args:
        asked: What the user asks for.
        place: Where the model lies; that of a run has the run's template.
        tokenizer: The model's; its chat template is taken where no run tells another.
        allowed: Module prefixes that `asked` may name besides mftrun's own.

    Raises:
        ConfigError: There is none, or it has no such key as shall be changed.
    """
    if asked.node is not None:
        return _told(build(asked.node, Template, _GROUP, allowed=allowed), "as asked for")
    if place.run is not None:
        own = (*(place.run.get("allowed_targets") or ()), *allowed)
        node = _changed(place.run[_GROUP], asked.changes)
        changes = f" but for {', '.join(asked.changes)}" if asked.changes else ""
        return _told(build(node, Template, _GROUP, allowed=own), f"as the run was trained{changes}")
    for key in asked.changes:
        raise ConfigError(
            key,
            f"changes the template of a run, and {place.adapter or place.model} lies in none; name the "
            f"template, too, as in template=chatml {key}=VALUE",
        )
    if tokenizer.chat_template is not None:
        return _told(ModelTemplate(), "the chat template of the tokenizer")
    raise ConfigError(
        _GROUP,
        f"{place.adapter or place.model} lies in no run and has no chat template; template=none continues "
        "plain text, or name the one that it was trained with, such as template=chatml",
    )


def asked_template(config: Mapping[str, Any]) -> Asked:
    """What a command line says of the template; the default of the group means nothing here.

    Args:
        config: The resolved configuration.

    Raises:
        ConfigError: A key below `template` is taken away, but no template is named.
    """
    overrides = _overrides(config)
    if any(_key(override) in (_GROUP, f"{_GROUP}._target_") for override in overrides):
        return Asked(node=config[_GROUP])
    below = [override for override in overrides if _key(override).startswith(f"{_GROUP}.")]
    for override in below:
        if override.startswith("~"):
            raise ConfigError(
                _key(override), f"{override} takes nothing out of a run's template; set it to another value"
            )
    return Asked(changes={_key(override): _value(config, _key(override)) for override in below})


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _value(config: Mapping[str, Any], key: str) -> Any:
    found: Any = config
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _changed(node: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A run's template with other values."""
    changed = copy.deepcopy(dict(node))
    for key, value in changes.items():
        *above, last = key.split(".")[1:]
        inner: Any = changed
        for name in above:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last not in inner:
            raise ConfigError(
                key,
                f"the run's template ({node.get('_target_')}) has no such key; name a template that has it, "
                f"as in template=chatml {key}=VALUE",
            )
        inner[last] = value
    return changed


def _overrides(config: Mapping[str, Any]) -> list[str]:
    """Those of the command line, and of those that it repeats."""
    from hydra.core.hydra_config import HydraConfig

    here = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    repeated = config.get("rerun")
    return here if repeated is None else [*_repeated(Path(repeated)), *here]


def _repeated(run: Path, later: frozenset[Path] = frozenset()) -> list[str]:
    """Those of a run, which may have repeated another one itself."""
    if run in later:
        raise ConfigError(
            "rerun", f"{run} has repeated itself in its own folder, over what it was told; say it anew"
        )
    before = (_written(run / CONFIG_FILE) or {}).get("rerun")
    earlier = [] if before is None else _repeated(Path(before), later | {run})
    return [*earlier, *(_written(run / ".hydra" / "overrides.yaml") or [])]


def _written(file: Path) -> Any:
    import yaml

    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None


def _told(template: Template, reason: str) -> Template:
    _log.info("template: %s (%s)", reason, type(template).__name__)
    return template
