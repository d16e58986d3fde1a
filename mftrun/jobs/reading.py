"""Which part of a command line a job reads: what it would pass over is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from mftrun.errors import ConfigError

# What the command line itself acts on, whatever the job.
_ALWAYS = frozenset({"job", "hydra", "name", "output_dir", "allowed_targets"})
_KEY = re.compile(r"[+~]*([^.=/@]+)")


def refuse_unread(job: Any, overrides: Sequence[str]) -> None:
    """Refuses overrides that a job would not read.

    Args:
        job: What `job` built. Its attribute `reads`, where it has one, names the groups and the keys at the
            root that it reads besides its own; a job without it reads all of them.
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
        if key not in _ALWAYS | reads | own:
            raise ConfigError(
                key, f"{override} would do nothing, as this job does not read {key}; leave it out"
            )


def _key(override: str) -> str:
    found = _KEY.match(override)
    return found[1] if found else override
