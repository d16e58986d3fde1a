"""A comparison as files: compare.html, and beside it compare.json and compare.csv."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from mftrun.compare.comparison import Comparison
from mftrun.compare.page import page
from mftrun.compare.table import as_csv, notes, tables
from mftrun.errors import ConfigError, MftrunError
from mftrun.files import write_atomically
from mftrun.runs.finding import find

PAGE_NAME = "compare.html"

# What each kind begins with.
_START = 4096
_PAGE_SIGN = b"<title>Runs compared: "
_SIGNS: Mapping[str, tuple[bytes, ...]] = MappingProxyType(
    {".json": (b'{\n  "folder": ', b'\n  "tasks": ['), ".csv": (b"run,state,",)}
)

log = logging.getLogger(__name__)


def write(comparison: Comparison, output: Path) -> None:
    """Writes the page, and the table as JSON and as CSV beside it, each whole or not at all.

    Text that is no Unicode, such as in the name of a folder, gets question marks.

    Args:
        comparison: The runs.
        output: The page's file; its folder is made when absent.

    Raises:
        ConfigError: There is a file of such a name that is none of a comparison.
        MftrunError: They cannot be written.
    """
    table = json.dumps(comparison.to_dict(), indent=2, allow_nan=False) + "\n"
    files = {
        output: page(comparison, datetime.datetime.now()),
        output.with_suffix(".json"): table,
        output.with_suffix(".csv"): as_csv(comparison),
    }
    try:
        _refuse_others(files)
        for path, text in files.items():
            write_atomically(path, text.encode(errors="replace"))
    except OSError as error:
        raise MftrunError(f"the comparison cannot be written to {output}: {error}") from error


def _refuse_others(paths: Iterable[Path]) -> None:
    for path in paths:
        start = path.read_bytes()[:_START] if path.is_file() else b""
        if start and not all(sign in start for sign in _SIGNS.get(path.suffix, (_PAGE_SIGN,))):
            raise ConfigError(
                "output", f"{path} is there already, and is no earlier comparison; choose another name"
            )


def show(comparison: Comparison) -> None:
    """Prints the tables to stdout, in its width."""
    from rich.console import Console

    from mftrun.runs.console import show as show_on

    console = Console()
    show_on(console, tables(comparison, console.width), notes(comparison, console.width))


def compare_sweep(sweep_dir: Path) -> None:
    """Compares the runs of a sweep at its end; whatever goes wrong is a warning, as the sweep itself is done.

    Args:
        sweep_dir: Folder of the sweep; the files go there.
    """
    try:
        comparison = Comparison.of_found(find(str(sweep_dir)))
        show(comparison)
        write(comparison, sweep_dir / PAGE_NAME)
        log.info("compared: %s", sweep_dir / PAGE_NAME)
    except Exception as error:
        log.warning(
            "the runs of %s are not compared: %s", sweep_dir, error, exc_info=log.isEnabledFor(logging.DEBUG)
        )
