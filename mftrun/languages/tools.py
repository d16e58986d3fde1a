"""What languages need of the machine: tools, and folders that a sandbox does not show by itself."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from mftrun.languages.base import Missing

ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}
)
"""What every command finds in its environment."""
_USR = Path("/usr")


def without(tools: Mapping[str, str]) -> Missing | None:
    """The first tool that is not on the path; None where all are.

    Args:
        tools: Name to the command that installs it.
    """
    absent = (Missing(name, install) for name, install in tools.items() if shutil.which(name) is None)
    return next(absent, None)


def visible(folders: Iterable[Path]) -> tuple[Path, ...]:
    """Folders that must be shown: those that are not below ``/usr`` or another one, each once."""
    shown: list[Path] = []
    for folder in sorted(set(folders)):
        if folder.exists() and not any(folder.is_relative_to(one) for one in (_USR, *shown)):
            shown.append(folder)
    return tuple(shown)


def prefix(tool: Path) -> Path:
    """Where a tool and what it needs have been installed: ``/opt/x`` of ``/opt/x/bin/tool``."""
    return tool.resolve().parent.parent


def stamp(file: Path) -> str:
    """A digest of a small file that tells a version; nothing where it is not there."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""
