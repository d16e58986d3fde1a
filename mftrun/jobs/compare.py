"""job=compare: runs side by side, as a table and as a page."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mftrun.errors import ConfigError
from mftrun.jobs.footprints import leave_no_folder

log = logging.getLogger(__name__)

_ENDINGS = (".html", ".htm")


@dataclass(frozen=True)
class CompareJob:
    """Compares runs, finished or not.

    Args:
        runs: A run, a folder with runs at any depth, or a glob of such; or a list of them.
        output: The page's file, ending in .html; compare.json and .csv go beside it. None puts it into the
            folder that the runs have in common.

    Raises:
        ConfigError: The output is no HTML file.
    """

    reads: ClassVar[frozenset[str]] = frozenset()

    runs: str | list[str]
    output: str | None = None

    def __post_init__(self) -> None:
        if self.output is not None and Path(self.output).suffix not in _ENDINGS:
            raise ConfigError("output", f"must be an HTML file such as compare.html, not {self.output}")

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Prints the table and writes the page.

        Args:
            config: The resolved configuration; not needed.
            run_dir: The job's own folder; it is removed again.

        Raises:
            MftrunError: There are no runs, the files cannot be written, or there are others of their names.
        """
        from mftrun.compare.comparison import Comparison
        from mftrun.compare.write import PAGE_NAME, show, write
        from mftrun.runs import find

        comparison = Comparison.of_found(find(self.runs))
        show(comparison)
        output = comparison.folder / PAGE_NAME if self.output is None else Path(self.output).expanduser()
        write(comparison, output)
        log.info("the page, in any browser: %s", output.absolute())
        leave_no_folder(run_dir)
