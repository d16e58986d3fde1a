"""Which configuration keys differ between a checkpoint and the run that resumes from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mftrun.errors import ConfigError
from mftrun.nested import changed
from mftrun.training.scoring import PASS

CONFIG = "config.json"

# What the checkpoint's weights and the run's tokens were made with, and what decides which samples are still
# to come after a given step: a run cannot go on with others.
FIXED = ("data", "template", "model", "peft", "rows", "sampler", "seed", "train.global_batch_size")

# Of these, what acts on the samples still to come of a run whose data is made while it goes on: whoever meets
# a bad line far into the data must be able to go on.
FIXED_UNLESS_STREAMED = ("data.on_bad", "data.on_overlong")

# Evaluations decide when a run or a task stops early, if any does.
NOT_FREE_IF_STOPPING = ("evaluation.every",)

# Scores decide which checkpoint is the best, if one is watched: they must stay comparable.
NOT_FREE_IF_SCORED = (
    "evaluation.benchmarks",
    "evaluation.scoring.every",
    "evaluation.scoring.problems",
    "evaluation.scoring.max_new_tokens",
    "evaluation.scoring.style",
)

# A probe that no task weight is computed from is only logged.
FREE_UNLESS_WATCHED = ("probe",)

# Keys whose change leaves every number of the run as it was: where things go, how often they are saved or
# shown, and how the global batch is split (split invariance).
FREE = (
    "name",
    "output_dir",
    "resume",
    "rerun",
    "allowed_targets",
    "tracker",
    "sandbox",
    "checkpoint",
    "evaluation.every",
    "evaluation.batch_size",
    "evaluation.pruning",
    "evaluation.benchmarks",
    "evaluation.scoring",
    "data.cache_dir",
    "data.num_workers",
    "distributed",
    "train.log_every",
    "train.micro_batch_size",
    "train.gradient_checkpointing",
)


def load_config(checkpoint: Path) -> dict[str, Any]:
    """The resolved configuration that a checkpoint was made with."""
    config: dict[str, Any] = json.loads((checkpoint / CONFIG).read_text(encoding="utf-8"))
    return config


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys that matter to the numbers of a run and differ, each with its old and its new value."""
    free = (*FREE, *(() if _watches_probe(old) or _watches_probe(new) else FREE_UNLESS_WATCHED))
    kept = (
        *(NOT_FREE_IF_STOPPING if _stops_early(new) else ()),
        *(NOT_FREE_IF_SCORED if _watches_scores(new) else ()),
    )
    return {
        key: pair for key, pair in changed(old, new).items() if _under(key, kept) or not _under(key, free)
    }


def _watches_probe(config: Mapping[str, Any]) -> bool:
    return bool(config.get("loss", {}).get("weighting", {}).get("watch") == "probe")


def _stops_early(config: Mapping[str, Any]) -> bool:
    stopping = config.get("evaluation", {}).get("early_stopping", {})
    return any(stopping.get(name) is not None for name in ("patience", "per_task"))


def _watches_scores(config: Mapping[str, Any]) -> bool:
    metric = config.get("evaluation", {}).get("early_stopping", {}).get("metric")
    return str(metric).startswith(PASS)


def refuse_changes(old: Mapping[str, Any], new: Mapping[str, Any], *, allowed: bool) -> None:
    """Stops a resume whose configuration would no longer continue the same run.

    Args:
        old: The checkpoint's configuration.
        new: That of the run which resumes from it.
        allowed: Whether the user accepts another course of training; what is `FIXED` must stay all the same.

    Raises:
        ConfigError: Names every changed key with both values.
    """
    changes = changed_keys(old, new)
    streams = new.get("data", {}).get("shard_samples") is not None
    free = FIXED_UNLESS_STREAMED if streams else ()
    fixed = {key: pair for key, pair in changes.items() if _under(key, FIXED) and not _under(key, free)}
    if fixed:
        raise ConfigError(
            "resume",
            f"{_listed(fixed)}\nA run keeps its model, its data and their order: set them back (rerun=RUN "
            "resume=RUN does), or start a new run for these.",
        )
    if changes and not allowed:
        raise ConfigError(
            "resume",
            f"{_listed(changes)}\n"
            "Set them back (rerun=RUN resume=RUN does), or add checkpoint.allow_changed_config=true to go "
            "on with the new ones.",
        )


def _listed(changes: Mapping[str, tuple[Any, Any]]) -> str:
    lines = "".join(f"\n  {key}: {before!r} -> {after!r}" for key, (before, after) in changes.items())
    return f"the checkpoint was made with other settings:{lines}"


def _under(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
