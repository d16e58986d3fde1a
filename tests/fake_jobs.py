"""Command lines run in this process, with a job of the test's own."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mftrun import cli


@contextmanager
def work_folder(parent: Path, patch: pytest.MonkeyPatch, name: str, job: str) -> Iterator[Path]:
    """An empty folder to run in, with a job that can be imported, and a log that goes back to pytest.

    Args:
        parent: Gets the folder, and the module of the job.
        patch: Undone by whoever gives it.
        name: The module's.
        job: Its text.
    """
    (parent / f"{name}.py").write_text(job)
    patch.syspath_prepend(str(parent))
    work = parent / "work"
    work.mkdir()
    patch.chdir(work)
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = list(root.handlers)
    yield work
    for handler in [one for one in root.handlers if one not in handlers]:
        handler.close()
    root.handlers[:], root.level = handlers, level
    sys.modules.pop(name, None)


def exit_code(patch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Runs `main` in this process; returns its exit code."""
    patch.setattr(sys, "argv", ["mftrun", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
