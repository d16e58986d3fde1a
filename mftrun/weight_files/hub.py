"""Models on the hub: how they are named, and their files here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mftrun.errors import ConfigError

_PART = r"[A-Za-z0-9_][\w.-]{0,95}"
_HUB_ID = re.compile(rf"{_PART}/{_PART}")


def is_hub_id(text: str) -> bool:
    """Whether a text can name a model on the hub: ``owner/name``."""
    return _HUB_ID.fullmatch(text) is not None


def downloaded(name: str, revision: str | None, files: Sequence[str], key: str) -> Path:
    """The folder of a model's files, from the hub or its cache.

    Args:
        name: Its id.
        revision: Branch, tag or commit; None takes the newest.
        files: Patterns of those that are needed.
        key: Of the configuration, that names the model.

    Raises:
        ConfigError: Neither the hub nor its cache gives it.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except (OSError, ValueError) as error:  # errors of the hub are OSErrors
        at = f" at revision {revision}" if revision else ""
        message = f"{name}{at} is neither a folder nor a model that the hub or its cache gives: {error}"
        raise ConfigError(key, message) from error


def cached(name: str, revision: str | None, files: Sequence[str]) -> Path | None:
    """The folder of a model's files in the hub's cache, which may lack some; None where it is not there.

    Args:
        name: Its id.
        revision: Branch, tag or commit; None takes the newest that the cache knows.
        files: Patterns of those that are needed.
    """
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(name, revision=revision, allow_patterns=list(files), local_files_only=True)
    except (OSError, ValueError):
        return None
    return Path(found)
