"""From the sources of all tasks to token stores, once per run, before there are ranks.

Sources are read twice, to count and check, then to encode: memory grows with the batch, not with the data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.data.report import DataReport
from mftrun.data.reuse import digest, kept, kept_on_resume
from mftrun.data.scan import ON_BAD, scan
from mftrun.data.selection import select, train_texts
from mftrun.data.settings import DataSettings, TaskSources
from mftrun.data.template import Template
from mftrun.data.writing import ON_OVERLONG, REPORT, Fit, encode, writers
from mftrun.errors import DataError
from mftrun.files import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["DataSettings", "TaskSources", "Texts", "prepare", "tokenizer_digest"]

_FORMAT = 1

Texts = Callable[[], Iterator[str]]


def prepare(
    tasks: Mapping[str, TaskSources],
    settings: DataSettings,
    make_tokenizer: Callable[[Texts], PreTrainedTokenizerFast],
    template: Template,
    *,
    seed: int,
    directory: Path,
    tokenizer_identity: Mapping[str, Any],
    resume: bool = False,
) -> DataReport:
    """Writes the stores ``directory/train`` and ``directory/valid`` and ``directory/report.json``.

    Stores that an earlier start made from the very same things are kept, and the tokenizer is not made then.

    Args:
        tasks: By name; their order gives the task ids.
        settings: How samples become stores.
        make_tokenizer: Called at most once, with a function that reads the texts of all training messages
            (again at each call). It should save the tokenizer where the run keeps it.
        template: How conversations become tokens.
        seed: Seed of the split.
        directory: The run's data folder.
        tokenizer_identity: Plain values (nested mappings of str, int, None) that say which tokenizer would be
            made: the digest of a model's files, or the settings of one trained from scratch.
        resume: Whether a resumed run keeps the stores it was started with, whatever became of their sources.

    Raises:
        DataError: Lines or samples that the policies refuse, a task without samples, a folder that cannot be
            written, or, with ``resume``, stores that are damaged.
        ConfigError: Too few samples for the split, or a template that does not fit the tokenizer.
    """
    origin_now = partial(_origin, tasks, settings, template, seed, tokenizer_identity)
    if resume and (earlier := kept_on_resume(directory, origin_now)) is not None:
        return earlier
    origin = origin_now()
    if (earlier := kept(directory, origin)) is not None:
        return earlier
    scans = [scan(name, sources.train, sources.valid) for name, sources in tasks.items()]
    ON_BAD[settings.on_bad](scans)
    limits = [sources.max_samples for sources in tasks.values()]
    size = settings.validation_size
    selections = [select(found, size, limit, seed) for found, limit in zip(scans, limits, strict=True)]
    tokenizer = make_tokenizer(partial(train_texts, selections))
    report = DataReport({}, digest(origin), tokenizer_digest(tokenizer))
    overlong = ON_OVERLONG[settings.on_overlong]
    with writers(directory, list(tasks), report.fingerprint) as stores:
        report.tasks = encode(
            selections, template.encoder(tokenizer), Fit(settings.max_length, overlong), stores
        )
    _write_report(directory / REPORT, {"origin": origin, "report": report.to_dict()})
    return report


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """A digest, equal for tokenizers that make the same tokens; compare it with `DataReport.tokenizer`."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {name: state[name] for name in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
    return digest([parts, tokenizer.eos_token, tokenizer.bos_token])


def _origin(
    tasks: Mapping[str, TaskSources],
    settings: DataSettings,
    template: Template,
    seed: int,
    tokenizer_identity: Mapping[str, Any],
) -> dict[str, Any]:
    origin = {
        "format": _FORMAT,
        "seed": seed,
        "data": {**asdict(settings), "tasks": {name: _task_origin(task) for name, task in tasks.items()}},
        "order of data.tasks": " ".join(tasks),
        "template": dict(template.fingerprint()),
        "tokenizer": dict(tokenizer_identity),
    }
    plain: dict[str, Any] = json.loads(json.dumps(origin))
    return plain


def _task_origin(task: TaskSources) -> dict[str, Any]:
    valid = dict(task.valid.fingerprint()) if task.valid is not None else None
    return {"train": dict(task.train.fingerprint()), "valid": valid, "max_samples": task.max_samples}


def _write_report(path: Path, value: Mapping[str, Any]) -> None:
    try:
        write_json(path, value)
    except OSError as error:
        raise DataError(path, 0, f"cannot be written: {error.strerror}") from error
