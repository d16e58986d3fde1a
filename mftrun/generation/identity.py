"""What answers depend on besides prompts and sampling: the model as it lies there, and how it is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from mftrun.generation.base import BackendOption, Weights
from mftrun.generation.place import Place

# Files of weights, configurations, tokenizers and code; a folder may also hold what is written meanwhile.
_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".json", ".model", ".txt", ".jinja", ".py"})


def identity(
    place: Place, weights: Weights, option: BackendOption, template: object, stop_ids: Sequence[int]
) -> dict[str, Any]:
    """Plain values that are the same where the same prompts get the same answers.

    Args:
        place: Where the model lies; what is on the hub must be loaded already.
        weights: How its weights are held.
        option: The backend.
        template: What its prompts are rendered with.
        stop_ids: Tokens that end an answer.
    """
    parts = {place.model: place.model_revision, place.tokenizer: place.tokenizer_revision}
    if place.adapter is not None:
        parts[place.adapter] = place.revision
    return {
        "files": [[where, fingerprint(where, revision)] for where, revision in sorted(parts.items())],
        "model": [place.model, place.adapter],
        "weights": vars(weights),
        "backend": [_name(option), dict(option.identity(weights))],
        "template": repr(template) if is_dataclass(template) else _name(template),
        "stop_ids": [int(token) for token in stop_ids],
    }


def fingerprint(where: str, revision: str | None) -> list[Any]:
    """What tells a model from another one at the same place, without reading it.

    Args:
        where: Folder, or id on the hub.
        revision: Branch, tag or commit on the hub.

    Returns:
        Names, sizes and times of the files of a folder; the revision and its commit on the hub.
    """
    folder = Path(where)
    if not folder.is_dir():
        return [revision, _commit(where, revision)]
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _commit(name: str, revision: str | None) -> str | None:
    """The commit that was loaded, by its folder in the cache; None where there is none."""
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "adapter_config.json", "tokenizer_config.json"):
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent.name
    return None


def _name(one: object) -> str:
    return f"{type(one).__module__}.{type(one).__qualname__}"
