"""How many programs run at a time: more than there are cores would time out for no fault of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path

from mftrun.distributed.machines import cores

_CGROUPS, _MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usual_workers(cgroups: Path = _CGROUPS, mine: Path = _MINE) -> int:
    """One for each core that this process may use, as its affinity and its control groups (v2) say.

    Args:
        cgroups: Where control groups are mounted.
        mine: Says which one is that of this process.
    """
    return max(1, min([cores(), *map(ceil, _quotas(cgroups, mine))]))


def _quotas(cgroups: Path, mine: Path) -> Iterator[float]:
    """Cores that each of the groups may use, from the own one up."""
    for group in _groups(cgroups, mine):
        try:
            quota, period = (group / "cpu.max").read_text().split()
            if quota != "max":
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue


def _groups(cgroups: Path, mine: Path) -> Iterator[Path]:
    try:
        lines = mine.read_text().splitlines()
    except OSError:
        lines = []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    group = cgroups / own
    yield group
    yield from (parent for parent in group.parents if parent.is_relative_to(cgroups))
