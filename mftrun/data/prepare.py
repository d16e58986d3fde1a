"""From a supply of tokens to the tables of a run, once per run, before there are ranks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mftrun.data.digests import digest
from mftrun.data.fitting import ON_OVERLONG, Limit
from mftrun.data.report import DataReport
from mftrun.data.selection import TRAIN_TABLE, VALID_TABLE, Rules, write_tables
from mftrun.data.settings import DataSettings
from mftrun.data.supply import Supply
from mftrun.data.table import SampleTable
from mftrun.data.template import Template
from mftrun.data.tokenizer import save_tokenizer, tokenizer_digest
from mftrun.errors import DataError, MftrunError
from mftrun.files import write_json
from mftrun.nested import changed

if TYPE_CHECKING:
    pass

REPORT = "report.json"

_FORMAT = 3
_log = logging.getLogger(__name__)


def prepare(
    supply: Supply,
    settings: DataSettings,
    template: Template,
    *,
    seed: int,
    directory: Path,
    tokenizer_folder: Path,
    cuts: bool = False,
    resume: bool = False,
) -> DataReport:
    """Writes the tables ``directory/train`` and ``directory/valid``, a report on them, and the tokenizer.

    Args:
        supply: Gives the tokenizer and the tokens.
        settings: How tokens become tables.
        template: How conversations become tokens.
        seed: Seed of the split.
        directory: The run's data folder.
        tokenizer_folder: Where the run keeps its tokenizer.
        cuts: Whether rows take parts of samples, so that none is over-long.
        resume: Whether a resumed run keeps the tables it was started with, whatever became of their sources.

    Raises:
        DataError: Lines or samples that the policies refuse, a task without samples, a folder that cannot be
            written, or, with ``resume``, tables that are damaged or tokens that cannot be had again.
        ConfigError: Too few samples for the split, or a template that does not fit the tokenizer.
    """
    stored = read_report(directory) if resume else None
    origin_now = partial(_origin, supply, settings, template, seed)
    if stored is not None and _is_whole(directory, stored["report"]["fingerprint"]):
        _warn_of_changes(directory, stored, origin_now)
        return DataReport.from_dict({**stored["report"], "reused": True})
    origin = origin_now()
    if stored is not None:
        _refuse_changes(directory, stored, origin)
    tokenizer = supply.tokenizer()
    report = DataReport({}, digest(origin), tokenizer_digest(tokenizer))
    if stored is not None and report.tokenizer != stored["report"]["tokenizer"]:
        _refuse_remake(directory, "  the tokenizer")
    tokens = supply.tokens(tokenizer)
    save_tokenizer(tokenizer, tokenizer_folder)
    limit = Limit(None if cuts else settings.max_length, ON_OVERLONG[settings.on_overlong])
    rules = Rules(limit, settings.validation_size, seed)
    report.tasks = write_tables(directory, tokens, rules, report.fingerprint)
    _write_report(directory / REPORT, {"origin": origin, "report": report.to_dict()})
    return report


def open_tables(directory: Path) -> tuple[SampleTable, SampleTable]:
    """The tables of training and of validation samples in a run's data folder.

    Raises:
        DataError: One is missing or damaged.
    """
    return SampleTable.open(directory / TRAIN_TABLE), SampleTable.open(directory / VALID_TABLE)


def read_report(directory: Path) -> dict[str, Any] | None:
    """The ``origin`` and the ``report`` of a data folder; None if there is none that can be read."""
    try:
        stored: dict[str, Any] = json.loads((directory / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored


def _is_whole(directory: Path, fingerprint: str) -> bool:
    """Whether the tables are there, with their token files, which lie in a cache that may be emptied."""
    try:
        tables = open_tables(directory)
    except DataError as error:
        _log.warning("preparing the data of %s again: %s", directory, error)
        return False
    # A start that was killed before its report was written leaves new tables beside the old report.
    return all(table.fingerprint == fingerprint for table in tables)


def _warn_of_changes(
    directory: Path, stored: Mapping[str, Any], origin_now: Callable[[], Mapping[str, Any]]
) -> None:
    try:
        changes = listed_changes(stored["origin"], origin_now())
    except MftrunError as error:
        changes = f"  {error}"
    if changes:
        _log.warning("going on with the data of %s; since it was made has changed:\n%s", directory, changes)


def _refuse_changes(directory: Path, stored: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    changes = listed_changes(stored["origin"], origin)
    if changes:
        _refuse_remake(directory, changes)


def _refuse_remake(directory: Path, changes: str) -> NoReturn:
    message = f"the tokens of this run are gone, and cannot be made again, as has changed:\n{changes}"
    raise DataError(directory, 0, message)


def _origin(supply: Supply, settings: DataSettings, template: Template, seed: int) -> dict[str, Any]:
    origin = {
        "format": _FORMAT,
        "seed": seed,
        "data": asdict(settings),
        "template": dict(template.fingerprint()),
        "tokens": dict(supply.fingerprint()),
    }
    plain: dict[str, Any] = json.loads(json.dumps(origin))
    return plain


def _write_report(path: Path, value: Mapping[str, Any]) -> None:
    try:
        write_json(path, value)
    except OSError as error:
        raise DataError(path, 0, f"cannot be written: {error.strerror}") from error


def listed_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """A line for each key whose values differ; "" where none do."""
    pairs = changed(old, new).items()
    return "\n".join(f"  {key}: {before} → {after}" for key, (before, after) in pairs)
