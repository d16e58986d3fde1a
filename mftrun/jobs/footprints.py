"""What a job that only looks on leaves behind: nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from mftrun.lock import LOCK
from mftrun.paths import CONFIG_FILE

_MADE_FOR_EVERY_JOB = frozenset({".hydra", LOCK, CONFIG_FILE, "mftrun.log"})


def leave_no_folder(run_dir: Path) -> None:
    """Removes a job's own folder, if nothing is there but what every job gets."""
    if {path.name for path in run_dir.iterdir()} <= _MADE_FOR_EVERY_JOB:
        shutil.rmtree(run_dir)
