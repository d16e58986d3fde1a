"""Finding the base of an adapter, and refusing another one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from mftrun.errors import ConfigError, DataError
from mftrun.merging.adapter import SavedAdapter
from mftrun.merging.base import BaseModel
from mftrun.merging.identity import HUB_FILES, RECORD, fingerprint_of, local_folder, recorded_fingerprint
from mftrun.weight_files.fingerprint import Fingerprint
from mftrun.weight_files.hub import downloaded, is_hub_id

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """The base that is asked for.

    Args:
        name: Folder or id on the hub; None takes what the adapter says.
        revision: Branch, tag or commit on the hub; None takes the one that the adapter was trained on.
        allow_other: Whether it may be another model than the adapter was trained on.
        trust_remote_code: Whether Python code in its folder may run.
    """

    name: str | None = None
    revision: str | None = None
    allow_other: bool = False
    trust_remote_code: bool = False


def find_base(adapter: SavedAdapter, wanted: Wanted) -> BaseModel:
    """The base that was asked for, or else the one that the adapter names.

    Args:
        adapter: The adapter.
        wanted: What is asked for.

    Raises:
        ConfigError: It cannot be found, or is another one.
        DataError: Its weights are missing or damaged.
    """
    named = named_base(adapter)
    where = wanted.name or named
    if where is None:
        raise ConfigError(
            "job.base", f"{adapter.folder} does not say what it was trained on; give job.base=DIR"
        )
    other = _other_id(wanted.name, named)
    if other is not None and not wanted.allow_other:
        raise ConfigError("job.base", f"{other}; {_way(wanted)}")
    folder = _folder_of(where, wanted.revision, adapter.base_revision if where == named else None)
    BaseModel(folder, wanted.trust_remote_code).check()
    known = other is None and _is_trained_on(adapter, folder, named, wanted)
    return BaseModel(folder, wanted.trust_remote_code, where, known)


def named_base(adapter: SavedAdapter) -> str | None:
    """What the adapter calls its base; one drawn at random lies in the run's folder, which may have moved."""
    name = adapter.base
    if name is not None and not Path(name).is_dir() and adapter.run is not None:
        moved = adapter.run / "base_model"
        if Path(name).name == moved.name and moved.is_dir():
            return str(moved)
    return name


def _folder_of(where: str, revision: str | None, trained_on: str | None) -> Path:
    path = Path(where).expanduser()
    if path.is_dir():
        if revision is not None:
            raise ConfigError("job.base_revision", f"{where} is a folder, which has no revision")
        return path
    if not is_hub_id(where):
        raise ConfigError("job.base", f"{where} is not here; give the base model's folder: job.base=DIR")
    if revision is not None and trained_on not in (None, revision):
        log.warning("%s at %s is taken; the adapter was trained on %s", where, revision, trained_on)
    return downloaded(where, revision or trained_on, HUB_FILES, "job.base")


def _other_id(asked: str | None, named: str | None) -> str | None:
    """Two ids on the hub are compared by name, before anything is fetched; what to say if they differ."""
    names = [name for name in (asked, named) if name and not Path(name).expanduser().exists()]
    if len(names) == 2 and all(map(is_hub_id, names)) and asked != named:
        return f"{asked} is asked for, and the adapter was trained on {named}"
    return None


def _is_trained_on(adapter: SavedAdapter, folder: Path, named: str | None, wanted: Wanted) -> bool:
    """Whether a folder is known to hold the adapter's base; refuses one that is known to be another."""
    by_name = _is_named(adapter, named, wanted)
    reference = _recorded(adapter, named) or (None if by_name else _original(adapter, named))
    if reference is None:
        return _unchecked(adapter, folder, named, wanted)
    found = reference.fingerprint.difference(fingerprint_of(folder, reference.fingerprint.places))
    if found is None:
        return True
    message = f"{folder} is another model than {reference.model}: {found}"
    if not wanted.allow_other:
        raise ConfigError("job.base", f"{message}; {_way(wanted)}")
    log.warning("%s; it is taken, as job.allow_other_base=true", message)
    return False


@dataclass(frozen=True)
class _Reference:
    """What a base is compared with."""

    model: str
    fingerprint: Fingerprint


def _recorded(adapter: SavedAdapter, named: str | None) -> _Reference | None:
    found = recorded_fingerprint(adapter)
    model = f"the adapter was trained on ({named or 'unnamed'}, as {RECORD} in its run tells)"
    return None if found is None else _Reference(model, found)


def _original(adapter: SavedAdapter, named: str | None) -> _Reference | None:
    """The model that the adapter names, while that is here with its weights."""
    folder = None if named is None else local_folder(named, adapter.base_revision)
    if folder is None:
        return None
    try:
        return _Reference(f"{folder}, which the adapter was trained on", fingerprint_of(folder))
    except (ConfigError, DataError) as error:  # a cache may hold a part of a model
        log.warning("%s, which the adapter was trained on, cannot be read: %s", named, error)
        return None


def _unchecked(adapter: SavedAdapter, folder: Path, named: str | None, wanted: Wanted) -> bool:
    """Without anything to compare with, the name decides."""
    if wanted.name is None and wanted.allow_other:
        raise ConfigError(
            "job.allow_other_base",
            f"acts with job.base, or on adapters whose folder holds {RECORD}; {adapter.folder} holds none",
        )
    known = _is_named(adapter, named, wanted)
    if not known:
        log.warning(
            "%s is taken for %s, the adapter's base, which is not here to compare with",
            folder,
            named or "none",
        )
    return known


def _is_named(adapter: SavedAdapter, named: str | None, wanted: Wanted) -> bool:
    return wanted.name in (None, named) and wanted.revision in (None, adapter.base_revision)


def _way(wanted: Wanted) -> str:
    first = "give the one it was trained on: job.base=DIR" if wanted.name is None else "leave job.base out"
    return f"{first}, or set job.allow_other_base=true"
