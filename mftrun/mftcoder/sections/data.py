"""The tasks, and how their samples become tokens and rows."""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose
from types import MappingProxyType
from typing import Any

from mftrun.mftcoder.tasks import key_names, named_by_path, renamed
from mftrun.mftcoder.translation import Translation
from mftrun.mftcoder.values import MISSING, Given, Values

_ROWS = MappingProxyType({"padding": "padding", "pack": "packing", "concat": "concat"})
_ROLES = ("system", "user", "assistant")


def translate_data(values: Values, out: Translation) -> None:
    """`data`, `rows` and `template`.

    Raises:
        ConfigError: A value has the wrong type, or means nothing that MFTCoder had.
    """
    _tasks(values, out)
    out.carry("data.max_length", values.whole("seq_length", least=1))
    _split(values, out)
    _rows(values, out)
    _template(values, out)
    raw = values.flag("load_raw_dataset")
    if raw is not None and not raw.value:
        out.drop(raw, "Megatron's binary files are not read: give the JSON lines that they were made from")
    elif raw is not None:
        out.drop(raw, "JSON lines are what is read anyway")
    out.carry("data.num_workers", _workers(values))


def data_paths(values: Values) -> list[str] | str:
    """The paths of the tasks, in order; `MISSING` for a name that stands for them.

    Raises:
        ConfigError: The value is no list.
    """
    given = values.any("data_paths")
    if given is None:
        return MISSING
    paths = given.value
    if isinstance(paths, str):
        if paths.startswith("$") or not paths.strip("[] "):
            return MISSING
        paths = [path.strip() for path in paths.strip().removeprefix("[").removesuffix("]").split(",")]
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise values.refused(given, 'must be paths, such as "[DIR,DIR]"')
    return paths


def _tasks(values: Values, out: Translation) -> None:
    given, paths = values.any("data_paths"), data_paths(values)
    if given is None:
        out.assume("data.paths", MISSING, "the file names no data")
    elif isinstance(paths, str) or named_by_path(paths, by_key=values.any("task_weights") is not None):
        out.put("data.paths", paths, given)
    else:
        for name, path in zip(key_names(paths), paths, strict=True):
            out.put(f"data.tasks.{name}.path", path, given)
        out.note(
            "tasks named otherwise than by their folders, as a key takes only letters, digits, _ and -, and "
            f"means one task: {', '.join(renamed(paths))}"
        )


def _workers(values: Values) -> Given[int] | None:
    workers = values.whole("preprocessing_num_workers")
    return workers if workers is not None and workers.value > 0 else None


def _split(values: Values, out: Translation) -> None:
    split = values.text("data_split")
    if split is None:
        return
    parts, raw = _shares(split.value), values.flag("load_raw_dataset")
    # MFTCoder divided by the sum, as Megatron does, for Megatron's files alone.
    whole = 100.0 if raw is None or raw.value else sum(parts)
    if not parts or not 0 < parts[0] <= whole:
        raise values.refused(split, "must be percentages, such as 95,5,0")
    out.put("data.valid_fraction", round(1 - parts[0] / whole, 6), split)
    _note_split(split.value, parts, whole, out)


def _shares(text: str) -> list[float]:
    """The numbers of a split, of which MFTCoder read three; none where one is no share."""
    try:
        parts = [float(part) for part in text.replace("/", ",").split(",")][:3]
    except ValueError:
        return []
    return parts if all(0 <= part < float("inf") for part in parts) else []


def _note_split(text: str, parts: list[float], whole: float, out: Translation) -> None:
    if len(parts) > 1 and not isclose(sum(parts), whole, rel_tol=1e-4):
        meant = "/".join(f"{100 * part / sum(parts):g}" for part in parts)
        out.note(
            f"data_split={text} does not add up to 100: MFTCoder took the first number for a percentage all "
            f"the same, and trained on {parts[0]:g} % of each task; for shares give values.data_split={meant}"
        )
    out.note(
        "of each task at most data.valid_max samples are for validation, 200 unless you raise it; MFTCoder "
        "took the whole share each time"
    )
    if len(parts) > 2 and parts[2] > 0:
        out.note(f"data_split={text}: all that is not for training is for validation")


def _rows(values: Values, out: Translation) -> None:
    mode = values.text("padding_mode")
    if mode is None:
        return
    if (option := _ROWS.get(mode.value)) is None:
        raise values.refused(mode, f"must be one of {', '.join(_ROWS)}")
    out.choose("rows", option, mode)
    if option != "concat":
        out.assume("data.on_overlong", "skip", "MFTCoder left out longer samples without a word")


def _template(values: Values, out: Translation) -> None:
    mode, markers = values.text("tokenize_mode"), values.any("role_markers")
    if mode is not None and mode.value in ("sst", "pretrain"):
        out.choose("template", "none", mode)
        out.drop(markers, "in pre-training there are no roles")
        return
    if mode is not None and mode.value != "sft":
        raise values.refused(mode, "must be sft, sst or pretrain")
    if markers is not None:
        out.choose("template", "markers", mode)
        _markers(values, markers, out)
        return
    out.choose("template", values.dialect.template, mode)
    kind = values.text("model_type")
    if values.dialect.template == "atorch" and kind is not None and kind.value == "qwen":
        out.note("the branch for the Code Qwen competition wrote ChatML instead: template=chatml")


def _markers(values: Values, markers: Given[Any], out: Translation) -> None:
    found = markers.value
    if not isinstance(found, Mapping) or not all(isinstance(found.get(role), str) for role in _ROLES):
        raise values.refused(markers, f"must give a text for each of {', '.join(_ROLES)}")
    for role in _ROLES:
        out.put(f"template.{role}_prefix", found[role], markers)
