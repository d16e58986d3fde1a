"""The run folders that a user means: one, those below a folder, or those of a pattern."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mftrun.errors import ConfigError
from mftrun.paths import CONFIG_FILE, FAILURE
from mftrun.runs.reading import CHECKPOINTS, RunFolder, is_file
from mftrun.runs.submitted import has_submitted
from mftrun.tracking.jsonl import METRICS_NAME
from mftrun.tracking.summary import SUMMARY_NAME

SWEEP_FILE = "multirun.yaml"
_SIGNS = (METRICS_NAME, CONFIG_FILE, SUMMARY_NAME, FAILURE, CHECKPOINTS, ".hydra")


@dataclass(frozen=True)
class Found:
    """What a user means.

    Attributes:
        runs: Training runs, and of sweeps jobs of any kind, in the natural order of their paths (`9_…` before
            `10_…`).
        sweeps: The folders of those sweeps that handed jobs to Slurm, which may not have a folder yet.
    """

    runs: Sequence[RunFolder]
    sweeps: Sequence[Path]

    def training_runs(self) -> list[RunFolder]:
        """The training runs alone.

        Raises:
            ConfigError: There is none.
        """
        runs = [run for run in self.runs if run.is_training]
        if not runs:
            jobs = f" yet; how its jobs stand in Slurm: job=status runs={self.folder}" if self.sweeps else ""
            raise ConfigError("runs", f"there is no training run in {self.folder}{jobs}")
        return runs

    @property
    def folder(self) -> Path:
        """The deepest folder that holds all of them."""
        return Path(os.path.commonpath([*(run.path.parent for run in self.runs), *self.sweeps]))


def find(patterns: str | Iterable[str]) -> Found:
    """What there is in folders or patterns.

    Args:
        patterns: A run, a folder with runs at any depth, or a glob of such; or several.

    Raises:
        ConfigError: There is no such folder, or nothing in it.
    """
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    tops = [top for pattern in given for top in _tops(pattern)]
    paths = dict.fromkeys(path for top in tops for path in runs_below(top))
    sweeps = dict.fromkeys(path for top in tops for path in _submitting(top))
    runs = [run for run in map(RunFolder.of, sorted(paths, key=natural_order)) if _counts(run)]
    if not runs and not sweeps:
        raise ConfigError("runs", f"there is no training run in {', '.join(given) or 'nothing'}")
    return Found(runs, sorted(sweeps, key=natural_order))


def find_runs(patterns: str | Iterable[str]) -> list[RunFolder]:
    """The training runs alone; see :func:`find`.

    Raises:
        ConfigError: There is none.
    """
    return find(patterns).training_runs()


def runs_below(top: Path) -> Iterator[Path]:
    """The folder itself where it is a run, else those below it; of a sweep each folder, also an empty one."""
    if is_run(top):
        yield top
        return
    of_sweep = _is_sweep(top)
    for child in _folders(top):
        if of_sweep:
            yield child
        else:
            yield from runs_below(child)


def is_run(path: Path) -> bool:
    """Whether something in the folder says that a run was started here; not in one that may not be read."""
    return not _is_sweep(path) and any(os.path.exists(path / sign) for sign in _SIGNS)  # noqa: PTH110


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


def _submitting(top: Path) -> Iterator[Path]:
    if has_submitted(top):
        yield top
    elif not _is_sweep(top) and not is_run(top):
        for child in _folders(top):
            yield from _submitting(child)


def _counts(run: RunFolder) -> bool:
    """Outside of sweeps, a folder may be that of a job that only made something."""
    return run.is_training or _is_sweep(run.path.parent)


def _is_sweep(path: Path) -> bool:
    return is_file(path / SWEEP_FILE)


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
