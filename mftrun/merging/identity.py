"""Which model an adapter belongs to: what its run recorded of it, and whether another one is the same."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mftrun.errors import ConfigError, DataError
from mftrun.merging.adapter import SavedAdapter
from mftrun.weight_files.fingerprint import Fingerprint
from mftrun.weight_files.hub import cached, is_hub_id

log = logging.getLogger(__name__)

RECORD = "base_fingerprint.json"
"""The file in an adapter's folder that tells its base from others."""
HUB_FILES = ("*.json", "*.safetensors", "pytorch_model*.bin", "*.txt", "*.model", "*.jinja", "*.py")
"""Patterns of the files of a base."""


def record_base(folder: Path, causal_lm: Any) -> None:
    """Writes beside an adapter what tells its base from other models; a base that is gone is told in the log.

    Args:
        folder: Of the adapter; exists.
        causal_lm: The base, as transformers loaded it.

    Raises:
        OSError: The disk is full or fails.
    """
    where = str(causal_lm.name_or_path)
    found = local_folder(where, getattr(causal_lm.config, "_commit_hash", None))
    try:
        if found is None:
            raise FileNotFoundError(f"{where} is not here any more")
        fingerprint = Fingerprint.of(found)
    except (OSError, ValueError, DataError) as error:
        log.warning("job=merge will not be able to check the adapter's base: %s", error)
        return
    fingerprint.write(folder / RECORD)


def recorded_fingerprint(adapter: SavedAdapter) -> Fingerprint | None:
    """What an adapter's run recorded of its base; None for adapters from elsewhere, and from older runs.

    Raises:
        ConfigError: It cannot be read.
    """
    folders = [adapter.folder] if adapter.run is None else [adapter.folder, adapter.run / "model"]
    file = next((folder / RECORD for folder in folders if (folder / RECORD).is_file()), None)
    if file is None:
        return None
    try:
        return Fingerprint.read(file)
    except (OSError, ValueError) as error:
        message = f"{file} cannot be read ({error}); remove it to merge without what it tells of the base"
        raise ConfigError("adapter", message) from error


def local_folder(where: str, revision: str | None) -> Path | None:
    """Where a model lies on this machine, its files on the hub being in the cache; None where it does not.

    Args:
        where: Folder or id on the hub.
        revision: Branch, tag or commit on the hub.
    """
    folder = Path(where).expanduser()
    if folder.is_dir():
        return folder
    return cached(where, revision, HUB_FILES) if is_hub_id(where) else None


def fingerprint_of(folder: Path, places: int | None = None) -> Fingerprint:
    """The fingerprint of a base.

    Raises:
        ConfigError: Its config.json cannot be read.
        DataError: Its weights are missing or damaged.
    """
    try:
        return Fingerprint.of(folder, places)
    except (OSError, ValueError) as error:
        raise ConfigError("job.base", f"config.json of {folder} cannot be read: {error}") from error
