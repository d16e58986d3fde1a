"""Which template a prompt is rendered with: the one asked for, the run's own, or the tokenizer's."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.build import build
from mftrun.data.template import ModelTemplate, Template
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mftrun.generation.place import Place

_log = logging.getLogger(__name__)

_GROUP = "template"


def choose_template(
    asked: Mapping[str, Any] | None,
    place: Place,
    tokenizer: PreTrainedTokenizerFast,
    allowed: Sequence[str] = (),
) -> Template:
    """The template of a generation, and a line in the log about it.

    Args:
        asked: The `_target_` config of one that the user asks for; None leaves the choice.
        place: Where the model lies; that of a run has the run's template.
        tokenizer: The model's; its chat template is taken where no run tells another.
        allowed: Module prefixes that `asked` may name besides mftrun's own.

    Raises:
        ConfigError: There is none.
    """
    if asked is not None:
        return _told(build(asked, Template, _GROUP, allowed=allowed), "as asked for")
    if place.run is not None:
        own = place.run.get("allowed_targets") or ()
        return _told(build(place.run[_GROUP], Template, _GROUP, allowed=own), "as the run was trained")
    if tokenizer.chat_template is not None:
        return _told(ModelTemplate(), "the chat template of the tokenizer")
    raise ConfigError(
        _GROUP,
        f"{place.adapter or place.model} lies in no run and has no chat template; template=none continues "
        "plain text, or name the one that it was trained with, such as template=chatml",
    )


def asked_template(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The `template` group of a command line, where that names it; its default means nothing here.

    Args:
        config: The resolved configuration.
    """
    names = (override.lstrip("+~").partition("=")[0].partition(".")[0] for override in _overrides(config))
    return config[_GROUP] if _GROUP in names else None


def _overrides(config: Mapping[str, Any]) -> list[str]:
    """Those of the command line, and of the one that it repeats."""
    from hydra.core.hydra_config import HydraConfig

    here = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    repeated = config.get("rerun")
    return here if repeated is None else [*_written(Path(repeated) / ".hydra" / "overrides.yaml"), *here]


def _written(file: Path) -> list[str]:
    import yaml

    return list(yaml.safe_load(file.read_text(encoding="utf-8")) or []) if file.exists() else []


def _told(template: Template, reason: str) -> Template:
    _log.info("template: %s, %s", type(template).__name__, reason)
    return template
