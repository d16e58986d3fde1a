"""What a sweep was asked for: what tells one sweep from another, and the keys that it sweeps over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from mftrun.files import write_atomically

MULTIRUN = "multirun.yaml"
_HOW_TO_GO_ON = "resume="  # says how to start, not what
_SWEEPER = ("_target_", "params", "search_space", "custom_search_space")


@dataclass(frozen=True)
class Asked:
    """What a sweep was asked for.

    Attributes:
        overrides: Those of the command line, without Hydra's own, in their order.
        sweeper: What decides which jobs its sweeper makes of them, and those of `hydra.sweeper.params`.
    """

    overrides: tuple[str, ...] = ()
    sweeper: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, overrides: Iterable[str], sweeper: Mapping[str, Any] | None = None) -> Asked:
        """What Hydra has composed: `hydra.overrides.task` and `hydra.sweeper`."""
        plain: Any = OmegaConf.to_container(sweeper) if OmegaConf.is_config(sweeper) else sweeper or {}
        chosen = {key: value for key in _SWEEPER if (value := plain.get(key))}
        return cls(tuple(str(one) for one in overrides), chosen)

    @property
    def params(self) -> Mapping[str, Any]:
        """What `hydra.sweeper.params` adds to the overrides."""
        params: Mapping[str, Any] = self.sweeper.get("params", {})
        return params

    @classmethod
    def read(cls, folder: Path) -> Asked | None:
        """What the sweep in a folder was asked for; None where no sweep is, or none that can be read."""
        try:
            text = (folder / MULTIRUN).read_text(encoding="utf-8")
            node = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["hydra"]
            return cls.of(node["overrides"]["task"], node.get("sweeper"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError):
            return None

    def note(self, folder: Path) -> None:
        """Writes it where Hydra's own sweeper writes its whole config; other sweepers write none."""
        node = {"overrides": {"task": list(self.overrides)}, "sweeper": dict(self.sweeper)}
        write_atomically(folder / MULTIRUN, json.dumps({"hydra": node}, indent=2) + "\n")

    def is_same(self, other: Asked | None) -> bool:
        """Whether both would run the same jobs, in the same order."""
        return other is not None and _told(self) == _told(other) and self.sweeper == other.sweeper

    def swept(self) -> set[str]:
        """The keys that were given several values, or an interval."""
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import OverrideParseException

        lines = [*(f"{key}={value}" for key, value in self.params.items()), *self.overrides]
        try:
            parsed = OverridesParser.create().parse_overrides(lines)
        except OverrideParseException:  # of a program that is not ours
            return set()
        return {one.get_key_element().lstrip("+") for one in parsed if one.is_sweep_override()}


def _told(asked: Asked) -> Sequence[str]:
    return [one for one in asked.overrides if not one.startswith(_HOW_TO_GO_ON)]
