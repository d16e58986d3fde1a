"""The run folders that a user means: one, those below a folder, or those of a pattern."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mftrun.errors import ConfigError
from mftrun.paths import CONFIG_FILE, FAILURE
from mftrun.runs.reading import (
    CHECKPOINTS,
    RunFolder,
    training_runs,
)
from mftrun.tracking.jsonl import METRICS_NAME
from mftrun.tracking.summary import SUMMARY_NAME

SWEEP_FILE = "multirun.yaml"
_SIGNS = (METRICS_NAME, CONFIG_FILE, SUMMARY_NAME, FAILURE, CHECKPOINTS, ".hydra")


def find_runs(patterns: str | Iterable[str]) -> list[RunFolder]:
    """The training runs in folders or patterns, in the natural order of their paths (`9_…` before `10_…`).

    Args:
        patterns: A run, a folder with runs at any depth, or a glob of such; or several.

    Raises:
        ConfigError: There is no such folder, or no run in it.
    """
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    found = dict.fromkeys(path for pattern in given for top in _tops(pattern) for path in runs_below(top))
    runs = training_runs(sorted(found, key=natural_order))
    if not runs:
        raise ConfigError("runs", f"there is no training run in {', '.join(given) or 'nothing'}")
    return runs


def runs_below(top: Path) -> Iterator[Path]:
    """The folder itself where it is a run, else those below it; of a sweep each folder, also an empty one."""
    if is_run(top):
        yield top
        return
    of_sweep = (top / SWEEP_FILE).is_file()
    for child in _folders(top):
        if of_sweep:
            yield child
        else:
            yield from runs_below(child)


def is_run(path: Path) -> bool:
    """Whether something in the folder says that a run was started here."""
    return not (path / SWEEP_FILE).is_file() and any((path / sign).exists() for sign in _SIGNS)


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sorts paths as people count: numbers in them by their value."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def common_folder(runs: Sequence[RunFolder]) -> Path:
    """The deepest folder that holds all of the runs."""
    return Path(os.path.commonpath([run.path.parent for run in runs]))


def label_of(run: RunFolder, folder: Path) -> str:
    """What tells a run from the others below a folder."""
    return run.path.relative_to(folder).as_posix()


def _tops(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():  # also one whose name has brackets
        return [path.absolute()]
    found = [Path(one).absolute() for one in sorted(glob.glob(str(path)))]  # noqa: PTH207 (it may be absolute)
    found = [path for path in found if path.is_dir()]
    if not found:
        raise ConfigError("runs", f"{pattern} is no folder, and no pattern of folders")
    return found


def _folders(top: Path) -> list[Path]:
    try:
        children = [Path(entry.path) for entry in os.scandir(top) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return sorted((path for path in children if not path.name.startswith(".")), key=natural_order)
