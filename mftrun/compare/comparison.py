"""Several runs side by side: their results, and where they are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mftrun.compare.result import RunResult, as_json
from mftrun.compare.seeds import SeedGroup, seed_groups
from mftrun.compare.settings import Settings, differing
from mftrun.runs.finding import Found, common_folder, label_of
from mftrun.runs.reading import RunFolder
from mftrun.runs.submitted import without_folder


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        folder: What they have in common of their paths.
        runs: Their folders.
        results: What each came to, in the same order.
        tasks: All tasks of any of them.
        groups: Those that differ in the seed only, together; empty where there are none.
        absent: Jobs of the same sweeps that Slurm was given and that have no folder yet, by their Slurm ids.
    """

    folder: Path
    runs: Sequence[RunFolder]
    results: Sequence[RunResult]
    tasks: Sequence[str]
    groups: Sequence[SeedGroup]
    absent: Sequence[str] = ()

    @staticmethod
    def of(runs: Sequence[RunFolder]) -> Comparison:
        """Reads the runs.

        Args:
            runs: One or more.
        """
        folder = common_folder(runs)
        settings = differing(runs)
        results = [
            RunResult.of(run, label_of(run, folder), own) for run, own in zip(runs, settings, strict=True)
        ]
        tasks = list(dict.fromkeys(task for run in runs for task in run.tasks))
        return Comparison(folder, runs, results, tasks, seed_groups(results, tasks))

    @staticmethod
    def of_found(found: Found) -> Comparison:
        """Reads the runs of what a user means.

        Raises:
            ConfigError: There is none.
        """
        absent = [one.job_id for sweep in found.sweeps for one in without_folder(sweep)]
        return replace(Comparison.of(found.training_runs()), absent=absent)

    @property
    def notes(self) -> list[str]:
        """What is to be known of all of them."""
        if not self.absent:
            return []
        return [f"not begun, and so not here: Slurm jobs {', '.join(self.absent)}; see job=status"]

    @property
    def setting_keys(self) -> list[str]:
        """The settings that differ between runs."""
        return setting_keys(result.settings for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        return {
            "folder": str(self.folder),
            "tasks": list(self.tasks),
            "runs": [as_json(result) for result in self.results],
            "not_begun": list(self.absent),
            "seeds": [{**asdict(group), "settings": dict(group.settings)} for group in self.groups],
        }


def setting_keys(settings: Iterable[Settings]) -> list[str]:
    """The keys of several settings, in the order of the first that has each."""
    return list(dict.fromkeys(key for one in settings for key in one))
