"""The folder that job=tokenize writes: token files and the tokenizer, to train from elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError, DataError
from mftrun.files import whole_folder, write_json
from mftrun.nested import flatten

if TYPE_CHECKING:
    from mftrun.data.selection import TaskTokens

MANIFEST = "tokens.json"
TOKENS = "tokens"
TOKENIZER = "tokenizer"
_KEY = "data.tokenized"
_VERSION = 1
_SHOWN = 3  # differences that a message names


def tokenized_tasks(folder: Path) -> list[str]:
    """Names of the tasks in such a folder, in their order.

    Raises:
        ConfigError: It is no such folder.
    """
    return list(read_manifest(folder)["tasks"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """What such a folder says of itself.

    Raises:
        ConfigError: It is no such folder.
    """
    path = folder / TOKENS / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{folder} holds no tokens ({path.name}); make them with job=tokenize output_dir={folder}"
        raise ConfigError(_KEY, message) from error
    if manifest.get("version") != _VERSION:
        message = f"{folder} is of version {manifest.get('version')}, not {_VERSION}; tokenize again"
        raise ConfigError(_KEY, message)
    return manifest


def write_tokenized(
    folder: Path, tasks: Sequence[TaskTokens], template: Mapping[str, Any], tokenizer: str
) -> None:
    """Puts the token files of all tasks into ``folder/tokens``, which appears whole or not at all.

    Files on the same disk are linked, not copied.

    Args:
        folder: The run's folder.
        tasks: The tokenized tasks.
        template: Fingerprint of the template.
        tokenizer: Digest of the tokenizer.

    Raises:
        DataError: The folder cannot be written.
    """
    try:
        with whole_folder(folder / TOKENS) as scratch:
            entries = {task.task: _copied(task, scratch) for task in tasks}
            manifest = {"version": _VERSION, "tasks": entries, "template": template, "tokenizer": tokenizer}
            write_json(scratch / MANIFEST, manifest)
    except OSError as error:
        raise DataError(
            folder / TOKENS, 0, f"cannot be written: {error.strerror}; free some space"
        ) from error


def open_tokenized(folder: Path, template: Mapping[str, Any], tokenizer: str) -> list[TaskTokens]:
    """The tasks of such a folder.

    Args:
        folder: What job=tokenize wrote.
        template: Fingerprint of the template to train with.
        tokenizer: Digest of the tokenizer to train with.

    Raises:
        ConfigError: It is no such folder, or was made with another tokenizer or template.
        DataError: A token file is damaged.
    """
    from mftrun.data.selection import TaskTokens
    from mftrun.data.token_file import TokenFile

    manifest = read_manifest(folder)
    _refuse_other(manifest, folder, template, tokenizer)
    tasks = []
    for name, entry in manifest["tasks"].items():
        train, valid = (
            None if path is None else TokenFile.open(folder / TOKENS / path)
            for path in (entry["train"], entry["valid"])
        )
        assert train is not None, "every task has samples to train on"
        tasks.append(TaskTokens(name, train, valid, entry["max_samples"], entry["location"]))
    return tasks


def _refuse_other(
    manifest: Mapping[str, Any], folder: Path, template: Mapping[str, Any], tokenizer: str
) -> None:
    here = dict(flatten(json.loads(json.dumps(template))))
    there = dict(flatten(manifest["template"]))
    changed = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    if changed:
        differs = "; ".join(
            f"{key}: {there.get(key)!r} there, {here.get(key)!r} here" for key in changed[:_SHOWN]
        )
        more = f" and {len(changed) - _SHOWN} more values" if len(changed) > _SHOWN else ""
        message = f"{folder} was tokenized with another one ({differs}{more}); choose that, or tokenize again"
        raise ConfigError("template", message)
    if manifest["tokenizer"] != tokenizer:
        message = f"{folder} was tokenized with another tokenizer than this model's; tokenize again"
        raise ConfigError(_KEY, message)


def _copied(task: TaskTokens, scratch: Path) -> dict[str, Any]:
    def copy(name: str, source: Path) -> str:
        shutil.copytree(source, scratch / task.task / name, copy_function=_link)
        return f"{task.task}/{name}"

    return {
        "train": copy("train", task.train.folder),
        "valid": None if task.valid is None else copy("valid", task.valid.folder),
        "max_samples": task.max_samples,
        "location": task.location,
    }


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, target)
    return target
