"""What a path holds: a run, an adapter on its base, a whole model, or a name on the hub."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mftrun.errors import ConfigError
from mftrun.jobs.layout import RunLayout
from mftrun.weight_files.hub import is_hub_id

_log = logging.getLogger(__name__)

_ADAPTER, _MODEL, _CONFIG = "adapter_config.json", "config.json", "config.yaml"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
_TRAINING = "mftrun.jobs.train.TrainJob"
_DEPTH = 3  # RUN/checkpoints/step-N/model lies that deep in its run


@dataclass(frozen=True)
class Place:
    """Where the parts of a model lie.

    Attributes:
        model: Folder or hub id of the whole model, the base where there is an adapter.
        tokenizer: Folder or hub id of the tokenizer.
        adapter: Folder or hub id of the adapter; None where the model is whole.
        run: Configuration of the run that trained it; None where that is not known.
        revision: Branch, tag or commit on the hub of the adapter, else of the model.
        base_revision: That of an adapter's base.
    """

    model: str
    tokenizer: str
    adapter: str | None = None
    run: Mapping[str, Any] | None = None
    revision: str | None = None
    base_revision: str | None = None

    @property
    def model_revision(self) -> str | None:
        """Branch, tag or commit on the hub of the whole model, the base where there is an adapter."""
        return self.revision if self.adapter is None else self.base_revision

    @property
    def tokenizer_revision(self) -> str | None:
        """The same of the tokenizer; None where it is not the model's."""
        return self.model_revision if self.tokenizer == self.model else None

    @property
    def adapter_settings(self) -> Mapping[str, Any]:
        """Peft's settings of the adapter; empty without one."""
        return {} if self.adapter is None else _adapter_settings(self.adapter, self.revision)

    @property
    def was_quantized(self) -> bool:
        """Whether the adapter was trained on quantised weights."""
        return bool(((self.run or {}).get("peft") or {}).get("quantization"))


def look_up(path: str, revision: str | None = None, base: str | None = None) -> Place:
    """Finds out what a path holds.

    Args:
        path: Folder of a run, of an adapter or of a model, or an id on the hub.
        revision: Branch, tag or commit on the hub.
        base: Where the base of an adapter lies now; None takes what the adapter names.

    Raises:
        ConfigError: It is none of these, the base of an adapter is missing, or one is named for no adapter.
    """
    found = _look_up(path, revision, base)
    if base is not None and found.adapter is None:
        raise ConfigError("job.base", f"is for adapters, and {found.model} is a whole model; leave it out")
    return found


def _look_up(path: str, revision: str | None, base: str | None) -> Place:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return _on_hub(path, revision, base)
    if revision is not None:
        raise ConfigError("job.revision", f"acts on the hub only, and path={folder} is a folder")
    folder = folder.absolute()
    run_dir = _run_of(folder)
    if folder == run_dir:
        folder = _model_of(run_dir)
    run = None if run_dir is None else _read_run(run_dir)
    if (folder / _ADAPTER).exists():
        base = _base_of(folder, run_dir) if base is None else _folder_or_id(base)
        pinned = _base_revision(base, _adapter_settings(str(folder), None), run)
        return Place(base, _tokenizer_of(folder, run_dir, base), str(folder), run, base_revision=pinned)
    if not (folder / _MODEL).exists():
        raise ConfigError(
            "path", f"{folder} holds neither a run, nor a model ({_MODEL}), nor an adapter ({_ADAPTER})"
        )
    return Place(str(folder), _tokenizer_of(folder, run_dir, str(folder)), run=run)


def _on_hub(path: str, revision: str | None, base: str | None) -> Place:
    if not is_hub_id(path):
        raise ConfigError(
            "path",
            f"{path} is not a folder; give that of a run, a model or an adapter, or owner/name on the hub",
        )
    _log.info("there is no folder %s here: it is taken for a model on the hub%s", path, _like(path))
    settings = _adapter_settings(path, revision)
    if not settings:
        return Place(path, path, revision=revision)
    base = str(settings.get("base_model_name_or_path")) if base is None else _folder_or_id(base)
    return Place(base, base, path, revision=revision, base_revision=_base_revision(base, settings, None))


def _like(path: str) -> str:
    """The folder that was perhaps meant."""
    named = Path(path)
    beside = [one.name for one in named.parent.iterdir() if one.is_dir()] if named.parent.is_dir() else []
    near = difflib.get_close_matches(named.name, beside, n=1)
    return f" (there is {named.parent / near[0]})" if near else ""


def _run_of(folder: Path) -> Path | None:
    """The training run that a folder is, or lies in."""
    for above in (folder, *list(folder.parents)[:_DEPTH]):
        if (above / _CONFIG).exists() and (_read_run(above).get("job") or {}).get("_target_") == _TRAINING:
            return above
    return None


def _read_run(run_dir: Path) -> Mapping[str, Any]:
    import yaml

    try:
        config = yaml.safe_load((run_dir / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError("path", f"{run_dir / _CONFIG} cannot be read: {error}") from error
    return config if isinstance(config, dict) else {}


def _model_of(run_dir: Path) -> Path:
    layout = RunLayout(run_dir)
    if layout.model.is_dir():
        return layout.model
    exported = sorted(run_dir.glob("checkpoints/*/model"), key=lambda found: found.stat().st_mtime)
    instead = f"give path={exported[-1]}" if exported else "go on with it by rerun and resume"
    raise ConfigError("path", f"the run {run_dir} is not finished: there is no {layout.model}; {instead}")


def _base_of(adapter: Path, run_dir: Path | None) -> str:
    named = str(_adapter_settings(str(adapter), None).get("base_model_name_or_path"))
    if Path(named).expanduser().is_dir():
        return str(Path(named).expanduser())
    kept = None if run_dir is None else RunLayout(run_dir).base_model
    if kept is not None and kept.is_dir():  # the run has moved, and its base with it
        return str(kept)
    if Path(named).is_absolute() or not is_hub_id(named):
        raise ConfigError(
            "path",
            f"{adapter} is an adapter on {named}, which is not there; put the base back, or say where it is: "
            "job.base=DIR",
        )
    return named


def _folder_or_id(base: str) -> str:
    """A base that the user names."""
    folder = Path(base).expanduser()
    if folder.is_dir():
        return str(folder.absolute())
    if not is_hub_id(base):
        raise ConfigError(
            "job.base", f"{base} is not a folder; give that of a model, or owner/name on the hub"
        )
    return base


def _base_revision(base: str, settings: Mapping[str, Any], run: Mapping[str, Any] | None) -> str | None:
    """Of a base on the hub: that of the run which trained on it, else what peft's settings name."""
    if Path(base).is_dir():
        return None
    trained_on = (run or {}).get("model") or {}
    recorded = trained_on.get("revision") if trained_on.get("path") == base else None
    return recorded or settings.get("revision")


def _tokenizer_of(folder: Path, run_dir: Path | None, base: str) -> str:
    if any((folder / name).exists() for name in _TOKENIZER):
        return str(folder)
    if run_dir is not None and RunLayout(run_dir).tokenizer.is_dir():
        return str(RunLayout(run_dir).tokenizer)
    return base


def _adapter_settings(where: str, revision: str | None) -> Mapping[str, Any]:
    """Contents of adapter_config.json; empty where there is none."""
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        file = find_adapter_config_file(where, revision=revision)
        settings = {} if file is None else json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("path", f"{where}: {_ADAPTER} cannot be read: {error}") from error
    return settings if isinstance(settings, dict) else {}
