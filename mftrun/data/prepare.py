"""From the sources of all tasks to token stores, once per run, before there are ranks.

Sources are read twice, to count and check, then to encode: memory grows with the batch, not with the data.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mftrun.data.encoder import Encoded
from mftrun.data.progress import progress
from mftrun.data.report import Counts, DataReport, TaskReport
from mftrun.data.sample import Sample
from mftrun.data.source import Source
from mftrun.data.split import TRAIN, UNUSED, VALID, ValidationSize, split
from mftrun.data.store import Entry, StoreWriter, TokenStore, store_writer
from mftrun.data.template import ConversationEncoder, Template
from mftrun.errors import ConfigError, DataError
from mftrun.files import write_json
from mftrun.nearest import unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TRAIN_STORE, VALID_STORE, REPORT = "train", "valid", "report.json"

_log = logging.getLogger(__name__)
_CHUNK = 512
_EXAMPLES = 5
_FORMAT = 1

Texts = Callable[[], Iterator[str]]


@dataclass(frozen=True)
class TaskSources:
    """Where one task comes from.

    Attributes:
        train: Its samples.
        valid: Its validation samples; None splits them off `train`. All of them are used.
        max_samples: Use a random subset of `train` of this size; None uses all.
    """

    train: Source
    valid: Source | None = None
    max_samples: int | None = None


@dataclass(frozen=True)
class DataSettings:
    """How samples become stores.

    Attributes:
        max_length: Longest sample in tokens.
        on_overlong: What to do with a longer one: ``error``, ``skip``, ``truncate``.
        on_bad: What to do with a line that is no sample: ``error``, ``skip``.
        valid_fraction: Share of each task held out for validation; 0 holds out none.
        valid_min: Hold out at least so many.
        valid_max: Hold out at most so many.

    Raises:
        ConfigError: A value is out of its range.
    """

    max_length: int = 1024
    on_overlong: str = "error"
    on_bad: str = "error"
    valid_fraction: float = 0.05
    valid_min: int = 1
    valid_max: int = 200

    def __post_init__(self) -> None:
        _check_choice("data.on_overlong", self.on_overlong, _ON_OVERLONG)
        _check_choice("data.on_bad", self.on_bad, _ON_BAD)
        _check("data.max_length", self.max_length, self.max_length >= 2, "at least 2")
        _check("data.valid_fraction", self.valid_fraction, 0 <= self.valid_fraction < 1, "in [0, 1)")
        _check("data.valid_min", self.valid_min, self.valid_min >= 0, "at least 0")
        too_small = f"at least data.valid_min={self.valid_min}"
        _check("data.valid_max", self.valid_max, self.valid_max >= self.valid_min, too_small)

    @property
    def validation_size(self) -> ValidationSize:
        """The size of the validation split."""
        return ValidationSize(self.valid_fraction, self.valid_min, self.valid_max)


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
        resume: Whether the stores must be those of the run that is resumed.

    Raises:
        DataError: Lines or samples that the policies refuse, a task without samples, a folder that cannot be
            written, or, with ``resume``, stores made from other things.
        ConfigError: Too few samples for the split, or a template that does not fit the tokenizer.
    """
    origin = _origin(tasks, settings, template, seed, tokenizer_identity)
    if (found := _kept(directory, origin, resume)) is not None:
        return found
    scans = [_scan(name, sources) for name, sources in tasks.items()]
    _ON_BAD[settings.on_bad](scans)
    plans = [_plan(scan, settings, seed) for scan in scans]
    tokenizer = make_tokenizer(partial(_train_texts, plans))
    report = DataReport({}, _digest(origin), tokenizer_digest(tokenizer))
    _write_stores(plans, settings, template.encoder(tokenizer), report, directory)
    _write_report(directory / REPORT, {"origin": origin, "report": report.to_dict()})
    return report


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """A digest that is equal for tokenizers that make the same tokens; compare with `DataReport.tokenizer`."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {name: state[name] for name in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
    return _digest([parts, tokenizer.eos_token, tokenizer.bos_token])


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


def _check(key: str, value: object, is_good: bool, wanted: str) -> None:
    if not is_good:
        raise ConfigError(key, f"must be {wanted}, not {value}")


def _check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ConfigError(key, unknown(value, choices, f"there is no policy {value!r}"))
