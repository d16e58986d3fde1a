"""The jobs that a sweep handed to Slurm, by what was written when they were submitted: begun or not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mftrun.runs.reading import RunFolder
from mftrun.runs.slurm import SUBMITTED, slurm_id, submitted_ids

_NUMBER = re.compile(rb"job_id_for_(\d+)")  # the launcher's name for it, in what the job gets
_OF_FOLDER = re.compile(r"(\d+)(?:_|$)")


@dataclass(frozen=True)
class Submitted:
    """A job that was handed to Slurm.

    Attributes:
        job_id: Such as `12_3`.
        sweep: Folder of its sweep.
    """

    job_id: str
    sweep: Path

    @cached_property
    def number(self) -> int | None:
        """Which job of the sweep it is; None where that cannot be told."""
        try:
            found = _NUMBER.search((self._folder / f"{self.job_id}_submitted.pkl").read_bytes())
        except OSError:
            return None
        return int(found[1]) if found else None

    @property
    def log(self) -> Path | None:
        """What it said, if it has come as far."""
        return min(self._folder.glob(f"{self.job_id}_*_log.out"), default=None)

    @property
    def _folder(self) -> Path:
        return self.sweep / SUBMITTED / self.job_id


def has_submitted(folder: Path) -> bool:
    """Whether it is the folder of a sweep that handed jobs to Slurm."""
    return bool(submitted_ids(folder))


def not_begun(sweep: Path) -> list[Submitted]:
    """The jobs that no folder is of yet; where one was submitted again, the newest of it.

    Args:
        sweep: Folder of the sweep.
    """
    submitted = [Submitted(job_id, sweep) for job_id in submitted_ids(sweep)]
    newest = {one.job_id if one.number is None else one.number: one for one in submitted}
    begun = {slurm_id(RunFolder.of(path)) for path in _folders(sweep)} if newest else set()
    return [one for one in newest.values() if one.job_id not in begun]


def without_folder(sweep: Path) -> list[Submitted]:
    """Those that have not begun now, nor when they were submitted before.

    Args:
        sweep: Folder of the sweep.
    """
    there = {number_of(path) for path in _folders(sweep)} - {None}
    return [one for one in not_begun(sweep) if one.number not in there]


def number_of(path: Path) -> int | None:
    """Which job of its sweep a run's folder is, by its name."""
    found = _OF_FOLDER.match(path.name)
    return int(found[1]) if found else None


def _folders(sweep: Path) -> list[Path]:
    return [path for path in sweep.glob("[!.]*") if path.is_dir()]
