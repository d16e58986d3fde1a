"""A comparison as files: compare.html, and beside it compare.json and compare.csv."""

from __future__ import annotations

import datetime
import json
import logging
from pathlib import Path

from mftrun.compare.comparison import Comparison
from mftrun.compare.page import page
from mftrun.compare.table import as_csv, notes, tables
from mftrun.errors import MftrunError
from mftrun.files import write_atomically
from mftrun.runs.finding import find_runs

PAGE_NAME = "compare.html"

log = logging.getLogger(__name__)


def write(comparison: Comparison, output: Path) -> None:
    """Writes the page, and the table as JSON and as CSV beside it, each whole or not at all.

    Args:
        comparison: The runs.
        output: The page's file; its folder is made when absent.

    Raises:
        MftrunError: They cannot be written.
    """
    table = json.dumps(comparison.to_dict(), indent=2, allow_nan=False) + "\n"
    try:
        write_atomically(output, page(comparison, datetime.datetime.now()))
        write_atomically(output.with_suffix(".json"), table)
        write_atomically(output.with_suffix(".csv"), as_csv(comparison))
    except OSError as error:
        raise MftrunError(f"the comparison cannot be written to {output}: {error}") from error


def show(comparison: Comparison) -> None:
    """Prints the tables to stdout, in its width."""
    from rich.console import Console

    console = Console()
    for table in tables(comparison, console.width):
        console.print(table)
    for line in notes(comparison, console.width):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def compare_sweep(sweep_dir: Path) -> None:
    """Compares the runs of a sweep at its end; whatever goes wrong is a warning, as the sweep itself is done.

    Args:
        sweep_dir: Folder of the sweep; the files go there.
    """
    try:
        comparison = Comparison.of(find_runs(str(sweep_dir)))
        show(comparison)
        write(comparison, sweep_dir / PAGE_NAME)
        log.info("compared: %s", sweep_dir / PAGE_NAME)
    except Exception as error:
        log.warning(
            "the runs of %s are not compared: %s", sweep_dir, error, exc_info=log.isEnabledFor(logging.DEBUG)
        )
