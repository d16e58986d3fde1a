"""The folder that job=tokenize writes: token files and the tokenizer, to train from elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mftrun.errors import ConfigError, DataError
from mftrun.files import whole_folder, write_json
from mftrun.nested import changed

if TYPE_CHECKING:
    from mftrun.data.selection import TaskTokens

MANIFEST = "tokens.json"
TOKENS = "tokens"
TOKENIZER = "tokenizer"
_KEY = "data.tokenized"
_VERSION = 1
_SHOWN = 3  # differences that a message names


class Fingerprints(NamedTuple):
    """What tokens were made with, besides their sources.

    Attributes:
        template: Fingerprint of the template.
        recipe: Of a tokenizer that was trained on the tasks; None for a model's own.
        tokenizer: Digest of the tokenizer.
    """

    template: Mapping[str, Any]
    recipe: Mapping[str, Any] | None
    tokenizer: str


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


def write_tokenized(folder: Path, tasks: Sequence[TaskTokens], made_with: Fingerprints) -> None:
    """Puts the token files of all tasks into ``folder/tokens``, which appears whole or not at all.

    Files on the same disk are linked, not copied.

    Args:
        folder: The run's folder.
        tasks: The tokenized tasks.
        made_with: What they were tokenized with.

    Raises:
        DataError: The folder cannot be written.
    """
    try:
        with whole_folder(folder / TOKENS) as scratch:
            entries = {task.task: _copied(number, task, scratch) for number, task in enumerate(tasks)}
            manifest = {"version": _VERSION, "tasks": entries, **made_with._asdict()}
            write_json(scratch / MANIFEST, manifest)
    except OSError as error:
        raise DataError(
            folder / TOKENS, 0, f"cannot be written: {error.strerror}; free some space"
        ) from error


def open_tokenized(folder: Path, train_with: Fingerprints) -> list[TaskTokens]:
    """The tasks of such a folder.

    Args:
        folder: What job=tokenize wrote.
        train_with: What the run trains with.

    Raises:
        ConfigError: It is no such folder, or was made with another tokenizer or template.
        DataError: A token file is damaged.
    """
    from mftrun.data.selection import TaskTokens
    from mftrun.data.token_file import TokenFile

    manifest = read_manifest(folder)
    _refuse_other(manifest, folder, train_with)
    tasks = []
    for name, entry in manifest["tasks"].items():
        train, valid = (
            None if path is None else TokenFile.open(folder / TOKENS / path)
            for path in (entry["train"], entry["valid"])
        )
        assert train is not None, "every task has samples to train on"
        tasks.append(TaskTokens(name, train, valid, entry["max_samples"], entry["location"]))
    return tasks


def _refuse_other(manifest: Mapping[str, Any], folder: Path, train_with: Fingerprints) -> None:
    again = f"tokenize again, or train with the same as {folder}"
    if differs := _differences(manifest["template"], train_with.template):
        raise ConfigError("template", f"{folder} was tokenized with another one ({differs}); {again}")
    if train_with.recipe and (differs := _differences(manifest["recipe"] or {}, train_with.recipe)):
        raise ConfigError("model", f"the tokenizer of {folder} was made otherwise ({differs}); {again}")
    if manifest["tokenizer"] != train_with.tokenizer:
        message = f"{folder} was tokenized with another tokenizer than this model's; {again}"
        raise ConfigError(_KEY, message)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    pairs = list(changed(old, json.loads(json.dumps(new))).items())
    shown = "; ".join(f"{key}: {there!r} there, {here!r} here" for key, (there, here) in pairs[:_SHOWN])
    return shown + (f" and {len(pairs) - _SHOWN} more values" if len(pairs) > _SHOWN else "")


def _copied(number: int, task: TaskTokens, scratch: Path) -> dict[str, Any]:
    # Folders are numbered: a task's name need not be the name of a file.
    files = {"train": task.train, "valid": task.valid}
    for name, file in files.items():
        if file is not None:
            shutil.copytree(file.folder, scratch / f"{number}_{name}", copy_function=_link)
    return {
        "max_samples": task.max_samples,
        "location": task.location,
        **{name: None if file is None else f"{number}_{name}" for name, file in files.items()},
        "content": [file.meta.content for file in task.files],
    }


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, target)
    return target
