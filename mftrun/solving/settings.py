"""What the answers of a record depend on; a record holds answers of one kind only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mftrun.errors import ConfigError
from mftrun.files import write_json
from mftrun.generation.sampling import Sampling

_SHOWN, _LONGEST = 4, 60
_ABSENT = "absent"


def sampling_values(sampling: Sampling, stop: Sequence[str]) -> dict[str, Any]:
    """What of sampling acts on an answer: not how many others there are, nor chance where nothing is drawn.

    Args:
        sampling: The settings.
        stop: Texts that end an answer.
    """
    found = {
        "max_new_tokens": sampling.max_new_tokens,
        "max_length": sampling.max_length,
        "temperature": float(sampling.temperature),
        "repetition_penalty": float(sampling.repetition_penalty),
        "stop": [*sampling.stop, *stop],
    }
    if sampling.is_greedy:
        return found
    return {**found, "top_p": float(sampling.top_p), "top_k": sampling.top_k, "seed": sampling.seed}


def keep_settings(path: Path, settings: Mapping[str, Any], *, is_empty: bool) -> None:
    """Writes the settings of a record, or compares them with those that it was begun with.

    Args:
        path: The file of the settings.
        settings: Plain values.
        is_empty: Whether the record holds no answer yet, and so can be begun anew.

    Raises:
        ConfigError: Answers are there, and are of other settings; names those that differ.
    """
    now = json.loads(json.dumps(settings))
    if is_empty:
        _write(path, now)
        return
    before = _read(path)
    if before == now:
        return
    differences = list(_differences(before, now))
    more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    raise ConfigError(
        "output",
        f"{path.parent} holds answers of other settings: {'; '.join(differences[:_SHOWN])}{more}; "
        "name another folder, or ask as before",
    )


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    try:
        write_json(path, settings)
    except OSError as error:
        raise ConfigError("output", f"cannot write {path}: {error.strerror}") from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            "output",
            f"{path.parent} holds answers, but what they were made with cannot be read from {path.name}; "
            "name another folder",
        ) from error


def _differences(before: Any, now: Any) -> Iterator[str]:
    """A line about each value that differs."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    for name in dict.fromkeys([*old, *new]):
        values = [found.get(name, _ABSENT) for found in (old, new)]
        if values[0] != values[1]:
            yield f"{name} was {_short(values[0])}, is {_short(values[1])}"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{name}.{key}" if name else str(key))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
