"""What of this machine is seen inside bubblewrap: its system folders, and nothing that is somebody's."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # links into /usr, or folders on older systems
_SETTINGS = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d")  # what tools of /usr are found by
_SETTING_PATTERN = "java*"  # a JDK of Debian keeps a part of itself there


@cache
def system() -> tuple[str, ...]:
    """Arguments of ``bwrap`` that show ``/usr`` and what its programs cannot do without, read-only."""
    shown = ["--ro-bind", "/usr", "/usr"]
    for path in (Path("/", name) for name in _LINKED):
        if path.is_symlink():
            shown += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            shown += ["--ro-bind", str(path), str(path)]
    folder = Path("/etc")
    shown += folders(["/etc"])
    for path in [*(folder / name for name in _SETTINGS), *sorted(folder.glob(_SETTING_PATTERN))]:
        if path.exists():
            shown += ["--ro-bind", str(path), str(path)]
    return tuple(shown)


def folders(paths: Iterable[str]) -> list[str]:
    """Arguments that make folders which everybody may enter; those that bubblewrap makes itself are closed.

    Args:
        paths: The folders; those above them are made as well.
    """
    wanted = {str(each) for path in paths for each in (Path(path), *Path(path).parents)} - {"/"}
    made: list[str] = []
    for path in sorted(wanted):
        made += ["--perms", "0755", "--dir", path]
    return made
