"""Folders that the tools of a language need before the first program, made once and kept for all runs."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mftrun.errors import MftrunError
from mftrun.files import PARTIAL
from mftrun.paths import cache_dir

_log = logging.getLogger(__name__)
_KNOWN = ("PATH", "HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "GOPATH", "GOROOT")  # where tools are
_SHOWN = 2000  # characters of what a tool said, at most


def prepared(name: str, key: Sequence[str], make: Callable[[Path], None]) -> Path:
    """A folder in the cache (`$MFTRUN_CACHE`, else ``~/.cache/mftrun``), whole or not there at all.

    Programs see it, and cannot write in it. Where several processes make it at once, the first one stays.

    Args:
        name: What it holds, in one word.
        key: All that what it holds depends on: versions of tools, texts of drivers.
        make: Fills a new folder.

    Raises:
        MftrunError: A tool failed at it, or the cache cannot be written.
    """
    stamp = hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
    folder = cache_dir(None) / "languages" / f"{name}-{stamp}"
    if not folder.is_dir():
        _log.info("preparing %s in %s; later runs find it there", name, folder)
        try:
            _make(folder, make)
        except OSError as error:
            raise MftrunError(f"cannot prepare {name} in {folder}: {error}") from error
    return folder


def asked(command: Sequence[str], cwd: Path | None = None, **environment: str) -> str:
    """What a tool of this machine says; outside of any sandbox, so never for what a program wrote.

    Args:
        command: Program and arguments.
        cwd: Where it runs.
        **environment: What it finds in its environment, besides what says where tools are.

    Raises:
        MftrunError: It failed.
    """
    known = {name: os.environ[name] for name in _KNOWN if name in os.environ}
    done = subprocess.run(
        command, cwd=cwd, env={**known, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MftrunError(f"{' '.join(command[:3])} failed:\n{(done.stderr or done.stdout)[-_SHOWN:]}")
    return done.stdout.strip()


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder.parent))
    try:
        make(scratch)
        _open_to_all(scratch)
        with contextlib.suppress(FileExistsError, OSError):
            scratch.rename(folder)  # onto a folder that is not empty it fails: somebody was faster
        if not folder.is_dir():
            raise OSError(f"{scratch} could not be renamed")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _open_to_all(folder: Path) -> None:
    """Programs run as somebody else, whatever the umask says."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
