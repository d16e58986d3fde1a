"""A saved adapter: its folder, its settings, its tensors, and the run that it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from mftrun.errors import ConfigError
from mftrun.paths import CONFIG_FILE
from mftrun.weight_files.tensor_file import Kind, TensorFile, tensor_file

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# They add tokens or layers instead of changing weights, or choose among adapters while the model runs.
_UNMERGEABLE = frozenset(
    {
        "ADAPTION_PROMPT",
        "CARTRIDGE",
        "CPT",
        "MULTITASK_PROMPT_TUNING",
        "P_TUNING",
        "POLY",
        "PREFIX_TUNING",
        "PROMPT_TUNING",
        "XLORA",
    }
)


@dataclass(frozen=True)
class SavedAdapter:
    """A folder that peft wrote.

    Args:
        folder: Holds adapter_config.json and the weights.
        run: Folder of the run that trained it; None where there is none around it.
    """

    folder: Path
    run: Path | None = None

    @classmethod
    def find(cls, path: Path) -> SavedAdapter:
        """The adapter in a folder, or in a run's.

        Raises:
            ConfigError: There is none, it is damaged, or of a kind that cannot be merged.
        """
        folder = path / "model" if (path / "model" / _CONFIG).exists() else path
        if not (folder / _CONFIG).exists():
            raise ConfigError("adapter", _reason(path))
        adapter = cls(folder, _run_around(folder))
        adapter.check()
        return adapter

    def check(self) -> None:
        """Refuses what cannot be merged.

        Raises:
            ConfigError: The settings cannot be read, the kind cannot be merged, or the weights are missing.
        """
        if self.kind in _UNMERGEABLE:
            raise ConfigError(
                "adapter", f"{self.folder} is of the kind {self.kind}, which no change of weights stands for"
            )
        if not any((self.folder / name).exists() for name in _WEIGHTS):
            raise ConfigError("adapter", f"{self.folder} holds no weights ({' or '.join(_WEIGHTS)})")

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What adapter_config.json says.

        Raises:
            ConfigError: It cannot be read.
        """
        try:
            content = json.loads((self.folder / _CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError("adapter", f"{self.folder / _CONFIG} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError("adapter", f"{self.folder / _CONFIG} is not a mapping")
        return content

    @property
    def kind(self) -> str:
        """The method, as peft names it, such as LORA."""
        return str(self.settings.get("peft_type"))

    @property
    def base(self) -> str | None:
        """The model it was trained on, a folder or an id on the hub, where it says so."""
        return self.settings.get("base_model_name_or_path") or None

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """Shape and dtype of its tensors by name."""
        return self._file.kinds()

    def read(self, name: str) -> Tensor:
        """One of its tensors."""
        return self._file.read(name)

    def peft_config(self) -> Any:
        """Its settings as an object of peft.

        Raises:
            ConfigError: This version of peft does not know them.
        """
        from peft import PeftConfig

        try:
            return PeftConfig.from_pretrained(str(self.folder))
        except (KeyError, TypeError, ValueError) as error:
            message = f"{self.folder / _CONFIG} is not understood by the peft installed here: {error}"
            raise ConfigError("adapter", message) from error

    @cached_property
    def run_config(self) -> Mapping[str, Any] | None:
        """The config of the run that trained it."""
        if self.run is None:
            return None
        content = yaml.safe_load((self.run / CONFIG_FILE).read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else None

    @property
    def base_revision(self) -> str | None:
        """Branch, tag or commit of its base on the hub, where the run's config or peft recorded one."""
        model: Any = (self.run_config or {}).get("model")
        if isinstance(model, Mapping) and model.get("path") == self.base:
            return model.get("revision") or None
        return self.settings.get("revision") or None

    @cached_property
    def _file(self) -> TensorFile:
        path = next(self.folder / name for name in _WEIGHTS if (self.folder / name).exists())
        return tensor_file(path)


def _run_around(folder: Path) -> Path | None:
    """A final model lies in RUN/model, that of a checkpoint in RUN/checkpoints/step-…/model."""
    around = folder.absolute().parents[:3]
    return next((path for path in around if (path / CONFIG_FILE).is_file()), None)


def _reason(path: Path) -> str:
    if not path.is_dir():
        return f"{path} is not a folder; give a run's, or one that holds {_CONFIG}"
    for folder in (path / "model", path):
        if (folder / "config.json").exists():
            return f"{folder} holds a whole model: there is nothing to merge"
    return f"{path} holds no {_CONFIG}, nor does its folder model; give a finished run, or an adapter"
