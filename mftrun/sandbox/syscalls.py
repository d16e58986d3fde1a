"""What programs may not ask of the kernel: memory that no process shows, and doors that no solution needs."""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

# Memory: memfd_create, memfd_secret, shmget, msgget, semget, mq_open.
# Other processes: ptrace, process_vm_readv, process_vm_writev, pidfd_getfd.
# Doors: io_uring_setup, userfaultfd, bpf, perf_event_open, add_key, request_key, keyctl.
_X86_64 = (319, 447, 29, 68, 64, 240, 101, 310, 311, 438, 425, 323, 321, 298, 248, 249, 250)
_AARCH64 = (279, 447, 194, 186, 190, 180, 117, 270, 271, 438, 425, 282, 280, 241, 217, 218, 219)
_LOAD, _EQUAL, _ABOVE, _RETURN = 0x20, 0x15, 0x35, 0x06  # of the kernel's packet filter
_NUMBER, _ARCHITECTURE = 0, 4  # where they stand in what a filter is shown
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_NOT_THERE = 0x00050000 | errno.ENOSYS  # what a program does that finds an older kernel is known to work
_X32 = 0x40000000  # another numbering of the same calls


class _Machine(NamedTuple):
    architecture: int
    refused: tuple[int, ...]


_MACHINES = {"x86_64": _Machine(0xC000003E, _X86_64), "aarch64": _Machine(0xC00000B7, _AARCH64)}


@cache
def refusals(machine: str) -> bytes:
    """A filter of system calls, as ``bwrap --seccomp`` reads it; empty where they are not known.

    Args:
        machine: As ``uname -m`` says it.
    """
    known = _MACHINES.get(machine)
    if known is None:
        return b""
    return b"".join(
        [
            _line(_LOAD, 0, 0, _ARCHITECTURE),
            _line(_EQUAL, 1, 0, known.architecture),
            _line(_RETURN, 0, 0, _KILL),
            _line(_LOAD, 0, 0, _NUMBER),
            _line(_ABOVE, len(known.refused) + 1, 0, _X32),
            *(_line(_EQUAL, left, 0, call) for left, call in _numbered(known.refused)),
            _line(_RETURN, 0, 0, _ALLOW),
            _line(_RETURN, 0, 0, _NOT_THERE),
        ]
    )


@contextmanager
def refusing() -> Iterator[int | None]:
    """Gives a file descriptor that the filter for this machine is read from; None where there is none."""
    program = refusals(platform.machine())
    if not program:
        yield None
        return
    read, write = os.pipe()
    try:
        os.write(write, program)
        os.close(write)
        yield read
    finally:
        os.close(read)


def _numbered(calls: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Each call with the number of lines from the next one to the refusal."""
    return ((len(calls) - place, call) for place, call in enumerate(calls))


def _line(code: int, if_so: int, if_not: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, if_so, if_not, value)
