"""The loss, and the weights of tasks in it."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from mftrun.mftcoder.sections.data import data_paths
from mftrun.mftcoder.tasks import key_names
from mftrun.mftcoder.translation import Translation
from mftrun.mftcoder.values import MISSING, Given, Values

_LOSSES = MappingProxyType(
    {
        "case1": "token_mean",
        "case2": "sample_mean",
        "case3": "mft",
        "case4": "task_sample_mean",
        "selfpaced": "self_paced",
        "coba": "coba",
    }
)
_WEIGHTED = ("case3", "case4")
_SELF_PACED = (
    "selfpaced_interval",
    "selfpaced_history_length",
    "selfpaced_sample_valid_num",
    "selfpaced_scale_factor",
)
_COBA = (
    "coba_warmup_steps",
    "coba_history_length",
    "coba_tau",
    "coba_update_interval",
    "coba_sample_valid_num",
)


def translate_loss(values: Values, out: Translation) -> None:
    """`loss` and `probe`.

    Raises:
        ConfigError: MFTCoder had no such loss, or a value has the wrong type.
    """
    mode = values.text("weighted_loss_mode")
    name = mode.value if mode is not None else ""
    if mode is not None:
        if (option := _LOSSES.get(name)) is None:
            raise values.refused(mode, f"is no loss that MFTCoder had: {', '.join(_LOSSES)}")
        out.choose("loss", option, mode)
    _task_weights(values, name, out)
    _self_paced(values, out) if name == "selfpaced" else _unused(values, _SELF_PACED, "selfpaced", out)
    _coba(values, out) if name == "coba" else _unused(values, _COBA, "coba", out)
    weights = values.any("data_weights")
    out.drop(weights, "nothing read it; sampler=weights sampler.weights.NAME=W does what the name says")


def _unused(values: Values, keys: Sequence[str], mode: str, out: Translation) -> None:
    for key in keys:
        out.drop(values.any(key), f"acts with weighted_loss_mode={mode} only")


def _self_paced(values: Values, out: Translation) -> None:
    window = values.whole("selfpaced_history_length", least=2)
    out.carry("loss.weighting.window", window)
    if window is not None:
        out.assume("loss.weighting.warmup", window.value, "MFTCoder's weights began to move then")
    out.carry("loss.weighting.scale", values.number("selfpaced_scale_factor"))
    out.carry("probe.interval", values.whole("selfpaced_interval", least=1))
    _probe(values.whole("selfpaced_sample_valid_num"), out)


def _coba(values: Values, out: Translation) -> None:
    interval = values.whole("coba_update_interval", least=1)
    warmup = values.whole("coba_warmup_steps", least=2)
    if warmup is not None:
        # Ours counts observations, of which there is one for each interval.
        observations = max(2, warmup.value // (interval.value if interval is not None else 1))
        out.put("loss.weighting.warmup", observations, warmup)
    out.carry("loss.weighting.window", values.whole("coba_history_length", least=2))
    out.carry("loss.weighting.tau", values.number("coba_tau"))
    out.carry("probe.interval", interval)
    out.assume("loss.weighting.sharpness", 1.0, "MFTCoder's code; the paper has none")
    out.assume("loss.weighting.min_weight", 0.1, "MFTCoder's code; the paper has 0")
    _probe(values.whole("coba_sample_valid_num"), out)


def _probe(batches: Given[int] | None, out: Translation) -> None:
    out.drop(
        batches,
        "MFTCoder took so many batches, in which a task might be absent; here every probe holds every task, "
        "with up to probe.tokens_per_task tokens of each",
    )


def _task_weights(values: Values, mode: str, out: Translation) -> None:
    given = values.any("task_weights")
    if given is None:
        return
    if mode and mode not in _WEIGHTED:
        out.drop(given, f"weighted_loss_mode={mode} has no place for them: MFTCoder did not read them either")
        return
    paths = data_paths(values)
    if isinstance(paths, str):
        problem = f"{MISSING} for data_paths: which task has which? values.data_paths=[DIR,DIR]"
        out.drop(given, f"{problem}, or loss.weighting.weights.NAME=W")
        return
    weights = _weights(values, given)
    if len(weights) != len(paths):
        raise values.refused(given, f"must have as many weights as data_paths has paths, {len(paths)}")
    for name, weight in zip(key_names(paths), weights, strict=True):
        out.put(f"loss.weighting.weights.{name}", weight, given)


def _weights(values: Values, given: Given[Any]) -> list[float]:
    parts = given.value.strip("[] ").split(",") if isinstance(given.value, str) else given.value
    try:
        weights = [float(part) for part in parts]
    except (TypeError, ValueError):
        raise values.refused(given, 'must be numbers, such as "[1.0,2.0]"') from None
    if not all(0 <= weight < float("inf") for weight in weights):
        raise values.refused(given, "must be finite numbers, each 0 or more")
    if weights and not any(weights):
        raise values.refused(given, "are 0 for every task: nothing would be trained")
    return weights
