"""job=submit: the competition's zip of solutions, checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mftrun.errors import ConfigError
from mftrun.jobs.footprints import leave_no_folder

if TYPE_CHECKING:
    from mftrun.scoring.generations import Generations

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubmitJob:
    """Checks the solutions of the competition's benchmarks, and writes them as it asks.

    Args:
        generations: Folder of solutions, or the one it lies in.
        output: The zip; None puts it beside the folder of solutions.
        force: Whether to write it although something departs from the rules.

    Raises:
        ConfigError: The output is no zip.
    """

    reads: ClassVar[frozenset[str]] = frozenset()

    generations: str
    output: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.output is not None and Path(self.output).suffix != ".zip":
            raise ConfigError("output", f"must be a file such as submission.zip, not {self.output}")

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Checks, and writes the zip.

        Args:
            config: The resolved configuration; not needed.
            run_dir: The job's own folder; it is removed again.

        Raises:
            ConfigError: Something departs from the rules; names all of it.
        """
        from mftrun.scoring.competition import competition_rows
        from mftrun.scoring.generations import find_generations
        from mftrun.scoring.greedy import known_manners
        from mftrun.scoring.submission import deviations, write_zip

        generations, rows = find_generations(self.generations), competition_rows()
        manners = known_manners(generations)
        self._say(deviations(generations, rows, manners))
        left_out = [task for task in generations.files if task not in rows]
        if left_out:
            log.warning("left out, as no part of the competition: %s", ", ".join(left_out))
        unknown = sorted(task for task in generations.files if task in rows and task not in manners)
        if unknown:
            told = ", ".join(unknown)
            log.warning("whether these answers are greedy is not known, as no record holds them: %s", told)
        output = self._output(generations)
        names = write_zip(generations, rows, output)
        log.info("%s files are in %s", len(names), output)
        leave_no_folder(run_dir)

    def _say(self, found: list[str]) -> None:
        if not found:
            return
        told = "\n  ".join(["departs from the competition's rules:", *found])
        if not self.force:
            raise ConfigError("generations", f"{told}\njob.force=true writes it as it is")
        log.warning(told)

    def _output(self, generations: Generations) -> Path:
        if self.output is None:
            return generations.folder.with_name(f"{generations.folder.name}.zip")
        return Path(self.output).expanduser().absolute()
