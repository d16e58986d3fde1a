"""job=status: how every job of a sweep stands."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mftrun.jobs.footprints import leave_no_folder


@dataclass(frozen=True)
class StatusJob:
    """Prints how runs stand, from their folders and, where there is one, from Slurm.

    Args:
        runs: A run, a folder with runs at any depth, or a glob of such; or a list of them.
    """

    reads: ClassVar[frozenset[str]] = frozenset()

    runs: str | list[str]

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Prints the table.

        Args:
            config: The resolved configuration; not needed.
            run_dir: The job's own folder; it is removed again.

        Raises:
            ConfigError: There are no runs, and no jobs that Slurm was given to run.
        """
        from rich.console import Console

        from mftrun.runs import find
        from mftrun.runs.console import show
        from mftrun.runs.status import lines, statuses, table

        found = statuses(find(self.runs), datetime.datetime.now(datetime.UTC))
        show(Console(), [table(found)], lines(found))
        leave_no_folder(run_dir)
