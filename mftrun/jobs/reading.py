"""Which part of a command line a job reads: what it would pass over is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from mftrun.errors import ConfigError

# What the command line itself acts on, whatever the job.
_ALWAYS = frozenset({"job", "hydra", "name", "output_dir", "rerun", "allowed_targets", "cluster", "sweep"})
_NEW_SWEEP = "resume=never"
_KEY = re.compile(r"[+~]*([^=/@]+)")


def refuse_unread(job: Any, overrides: Sequence[str]) -> None:
    """Refuses overrides that a job would not read.

    Args:
        job: What `job` built. Its attribute `reads`, where it has one, names the groups, the keys at the root
            and single keys of groups (``data.on_bad``) that it reads besides its own; a job without it reads
            all of them. The choice of a group of which it reads single keys is refused, too.
        overrides: Those of the command line.

    Raises:
        ConfigError: Names the first that would do nothing.
    """
    reads = getattr(job, "reads", None)
    if reads is None:
        return
    own = {field.name for field in fields(job)} if is_dataclass(job) else set()
    for override in overrides:
        key = _key(override)
        if override != _NEW_SWEEP and not _is_below(key, _ALWAYS | reads | own):
            raise ConfigError(
                key, f"{override} would do nothing, as this job does not read {key}{_of_group(key, reads)}"
            )


def _key(override: str) -> str:
    found = _KEY.match(override)
    return found[1] if found else override


def _is_below(key: str, known: Iterable[str]) -> bool:
    return any(f"{key}.".startswith(f"{one}.") for one in known)


def _of_group(key: str, reads: Iterable[str]) -> str:
    """The way out: which keys beside it act."""
    group = key.partition(".")[0]
    beside = sorted(one for one in reads if one.startswith(f"{group}."))
    return f" (of {group} it reads {', '.join(beside)}); leave it out" if beside else "; leave it out"
