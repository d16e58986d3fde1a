"""How a job ended: its metric and whether it was pruned in RUN/summary.json, or RUN/failure.json."""

from __future__ import annotations

import datetime
import json
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mftrun.errors import ConfigError
from mftrun.files import write_json
from mftrun.paths import CONFIG_FILE, FAILURE, SUMMARY
from mftrun.training.pruning import PRUNED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A run that is done.

    Attributes:
        metric: The lowest watched validation loss, or what the best watched score lacks to 1; None without.
        pruned: Step at which it ended for being behind the others of its sweep; None if it did not.
    """

    metric: float | None
    pruned: int | None


def finished(run_dir: Path, config: Mapping[str, Any]) -> Finished | None:
    """The outcome of the run in a folder, if it is done.

    Args:
        run_dir: The run's folder.
        config: The resolved config of the job that would run there.

    Raises:
        ConfigError: The run that is done had other settings.
    """
    summary = _read(run_dir / SUMMARY)
    if summary is None:
        return None
    _refuse_other(run_dir, config, pruned=summary.get(PRUNED) is not None)
    if "metric" in summary:
        return Finished(summary["metric"], summary.get(PRUNED))
    return _measured(run_dir, config)  # killed before it was noted


def note_finish(run_dir: Path, metric: float | None, *, in_sweep: bool) -> None:
    """Adds to the summary of a run what a sweep goes by; a job of a sweep gets one in any case."""
    summary = _read(run_dir / SUMMARY)
    if summary is None:
        if not in_sweep:
            return
        summary = {}
    try:
        write_json(run_dir / SUMMARY, {**summary, "metric": metric, PRUNED: _pruned(_records(run_dir))})
    except OSError as error:  # the job is done all the same, and the metric can be had from its records
        log.warning("cannot write %s: %s", run_dir / SUMMARY, error.strerror)


def note_failure(run_dir: Path, error: BaseException, message: str) -> None:
    """Writes RUN/failure.json.

    Args:
        run_dir: The run's folder.
        error: What ended the run.
        message: The same in words for the user.
    """
    lines = "".join(traceback.format_exception(error)).strip().splitlines()
    node = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "error": type(error).__name__,
        "message": message,
        "traceback": lines[-1].strip(),
    }
    try:
        write_json(run_dir / FAILURE, node)
    except OSError as full:
        log.warning("cannot write %s: %s", run_dir / FAILURE, full.strerror)


def forget_failure(run_dir: Path) -> None:
    """What an earlier attempt came to says nothing of the one that begins."""
    (run_dir / FAILURE).unlink(missing_ok=True)


def _refuse_other(run_dir: Path, config: Mapping[str, Any], *, pruned: bool) -> None:
    from mftrun.nested import changed
    from mftrun.training.changes import changed_keys

    saved = _load(run_dir / CONFIG_FILE)
    changes = {} if saved is None else changed_keys(saved, config)
    if saved is not None and pruned:  # what ended it must be what would end it now
        changes |= changed(_rules(saved), _rules(config))
    if changes:
        listed = ", ".join(f"{key}: {old!r} -> {new!r}" for key, (old, new) in changes.items())
        raise ConfigError(
            "output_dir",
            f"{run_dir} holds a finished job with other settings ({listed}); choose another output_dir, "
            "or start a new sweep with resume=never",
        )


def _rules(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"evaluation": {"pruning": config.get("evaluation", {}).get("pruning")}}


def _load(path: Path) -> dict[str, Any] | None:
    try:
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return node if isinstance(node, dict) else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        node = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return node if isinstance(node, dict) else None


def _records(run_dir: Path) -> list[dict[str, Any]]:
    from mftrun.tracking.jsonl import METRICS_NAME, read

    path = run_dir / METRICS_NAME
    return read(path) if path.exists() else []


def _pruned(records: list[dict[str, Any]]) -> int | None:
    """Step at which a run was pruned; not of one that went on from there, as it was asked to."""
    last = records[-1]["step"] if records else None
    return next((last for record in reversed(records) if PRUNED in record and record["step"] == last), None)


def _measured(run_dir: Path, config: Mapping[str, Any]) -> Finished:
    from mftrun.training.scoring import scores_of
    from mftrun.training.stopping import EarlyStopping, losses_of

    watch = EarlyStopping(metric=config["evaluation"]["early_stopping"]["metric"])
    records = _records(run_dir)
    evaluations = [losses_of(record) for record in records]  # None stands for what was not finite
    values = [watch.watched(losses) for losses in evaluations if None not in losses.values()]
    values += [watch.lacking(scores_of(record)) for record in records]
    return Finished(min((value for value in values if value is not None), default=None), _pruned(records))
