"""Limits that all sandboxes have, and what the kernel can be told of them for one process."""

from __future__ import annotations

import math
import os

from mftrun.sandbox.base import Limits

NOBODY = 65534  # who runs programs where this is root
OPEN_FILES = 512
SHARED_MEMORY = 64 << 20  # bytes of /dev/shm
_SIGNALS = range(129, 193)


def limited(limits: Limits) -> list[str]:
    """What a command is begun with, to hold it to its limits.

    Args:
        limits: What it may use. Those of the kernel count for each process, but for the number of them.
    """
    cores = os.cpu_count() or 1
    return [
        "/usr/bin/prlimit",
        f"--cpu={math.ceil(limits.seconds) * cores + 1}",  # the clock is looked at outside
        f"--data={limits.memory}",
        f"--nproc={limits.processes}",
        f"--fsize={limits.disk}",
        "--core=0",
        f"--nofile={OPEN_FILES}",
        "--",
    ]


def plain_code(code: int) -> int:
    """An exit code as Python says it: a shell's 128 + signal becomes a negative number.

    Args:
        code: As sandboxes hand it on, which do not tell a program that exits so from one that was ended.
    """
    return 128 - code if code in _SIGNALS else code
