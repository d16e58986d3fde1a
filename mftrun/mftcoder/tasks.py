"""Names of tasks, by which keys of ours reach them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

# What Hydra takes for one part of a key; a dot would begin the next part.
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|0|[1-9][0-9]*")
_ENDING = re.compile(r"\.(jsonl|json|parquet)(\.(gz|zst))?$")


def named_by_path(paths: Sequence[str], by_key: bool) -> bool:
    """Whether `data.paths` will do, which names each task by the last part of its path.

    Args:
        paths: Those of the tasks.
        by_key: Whether the names become parts of keys.
    """
    names = [_last(path) for path in paths]
    return len(set(names)) == len(names) and not (by_key and any(map(_unfit, names)))


def key_names(paths: Sequence[str]) -> list[str]:
    """A name for each task: the last part of its path, made fit for a key, and of no other task.

    Args:
        paths: Those of the tasks.
    """
    short = [_fit(_last(path)) for path in paths]
    names: list[str] = []
    for path, name in zip(paths, short, strict=True):
        wanted = name if short.count(name) == 1 else _fit("_".join(_parts(path)[-2:]))
        names.append(_free(wanted, {*names, *({*short} - {name})}))
    return names


def renamed(paths: Sequence[str]) -> list[str]:
    """What to tell of tasks whose `key_names` are not the last parts of their paths."""
    pairs = zip(paths, key_names(paths), strict=True)
    return [f"{path} is {name}" for path, name in pairs if name != _last(path)]


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part] or [""]
    return [*parts[:-1], _ENDING.sub("", parts[-1])]


def _last(path: str) -> str:
    return _parts(path)[-1]


def _unfit(name: str) -> bool:
    return _KEY.fullmatch(name) is None


def _fit(name: str) -> str:
    if not _unfit(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")
    return plain if _KEY.fullmatch(plain) else f"task_{plain}".rstrip("_")


def _free(name: str, taken: Collection[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free
