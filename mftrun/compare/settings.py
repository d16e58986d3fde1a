"""Which settings tell runs apart, in as few and as plain words as they can be told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mftrun.runs.reading import RunFolder

SEED = "seed"
Settings = Mapping[str, str]
"""Key, as on a command line, to value, as text. A key that a run does not have is absent."""

# What says where a run is, who looks on, or how often it may stop: not what it computes.
_ASIDE = ("output_dir", "resume", "rerun", "allowed_targets", "job", "tracker", "checkpoint", "recommended")
_ASIDE_KEYS = frozenset({"data.cache_dir", "data.num_workers"})
_ASIDE_GROUPS = frozenset({"job", "tracker", "machines", "recommended", "sweep", "cluster"})
_TARGET = "_target_"


def differing(runs: Sequence[RunFolder]) -> list[Settings]:
    """The settings of each run that are not the same in all of them.

    An option of a group (`loss=mft`) stands for all the values that it brings along.

    Args:
        runs: Those to tell apart; one without a config has no settings.

    Returns:
        For each run its own, all in one order of keys.
    """
    known = [number for number, run in enumerate(runs) if run.config is not None]
    found: list[dict[str, str]] = [{} for _ in runs]
    for key, column in _columns([runs[number] for number in known]).items():
        for number, value in zip(known, column, strict=True):
            if value is not None:
                found[number][key] = value
    return list(found)


Column = list[str | None]


def _columns(runs: Sequence[RunFolder]) -> dict[str, Column]:
    """The columns that differ, a group's option before the values that it does not explain."""
    groups = _different(_table([_choices(run) for run in runs]))
    if not _all_have_choices(runs):
        groups = {}
    values = _different(_table([_flat(run.config or {}) for run in runs]))
    chosen: dict[str, Column] = {}
    for key, column in [*sorted(groups.items()), *values.items()]:
        if not any(_explains(chosen[above], column) for above in _above(key) if above in chosen):
            chosen[key] = column
    return {_as_written(key): [_short(key, value) for value in column] for key, column in chosen.items()}


def _all_have_choices(runs: Sequence[RunFolder]) -> bool:
    """A run that took another's config (`rerun=`) says nothing of options."""
    return all(_choices(run) for run in runs)


def _choices(run: RunFolder) -> dict[str, str]:
    runtime = run.hydra.get("runtime")
    choices = runtime.get("choices") if isinstance(runtime, Mapping) else None
    if not isinstance(choices, Mapping):
        return {}
    return {
        str(group).replace("/", "."): str(option)
        for group, option in choices.items()
        if str(group).partition("/")[0] not in {"hydra", *_ASIDE_GROUPS}
    }


def _flat(node: Mapping[Any, Any], prefix: str = "") -> dict[str, str]:
    """Dotted key to value, as text; a list is one value."""
    found: dict[str, str] = {}
    for name, value in node.items():
        key = f"{prefix}{name}"
        if key in _ASIDE or key in _ASIDE_KEYS:
            continue
        if isinstance(value, Mapping) and value:
            found.update(_flat(value, f"{key}."))
        else:
            found[key] = _text(value)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _table(rows: Sequence[Mapping[str, str]]) -> dict[str, Column]:
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}


def _different(columns: Mapping[str, Column]) -> dict[str, Column]:
    return {key: column for key, column in columns.items() if len(set(column)) > 1}


def _explains(option: Column, column: Column) -> bool:
    """Whether runs with one option have one value."""
    value_of: dict[str | None, str | None] = {}
    return all(value_of.setdefault(one, value) == value for one, value in zip(option, column, strict=True))


def _above(key: str) -> list[str]:
    """What a key may be explained by: the groups that it is in, and the class of each."""
    parts = key.split(".")
    outer = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    return [*outer, *(f"{one}.{_TARGET}" for one in outer if f"{one}.{_TARGET}" != key)]


def _as_written(key: str) -> str:
    return key.removesuffix(f".{_TARGET}")


def _short(key: str, value: str | None) -> str | None:
    """A class by its name."""
    return value.rpartition(".")[2] if value is not None and key.endswith(_TARGET) else value
