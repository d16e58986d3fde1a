"""Bubblewrap: namespaces of its own for each command, and the least of this machine inside them."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mftrun.sandbox.base import BUILD, JOB, End, Outcome, Sandbox, Step
from mftrun.sandbox.building import Building
from mftrun.sandbox.enclosed import Enclosed
from mftrun.sandbox.mounts import folders, system
from mftrun.sandbox.process import Command, started
from mftrun.sandbox.rlimits import NOBODY, SHARED_MEMORY, limited, plain_code
from mftrun.sandbox.status import Status
from mftrun.sandbox.syscalls import refusing
from mftrun.sandbox.trial import UnusableError, try_closed, try_out
from mftrun.sandbox.usage import Usage

log = logging.getLogger(__name__)

_HELD = "/mnt"  # where what a closed folder holds is shown to the layer inside
_TRIAL = 20.0
_NEEDED = ("bwrap", "prlimit", "setpriv", "unshare")
_INSTALL = "apt-get install bubblewrap util-linux"
_HELP = (
    "it must be 0.8 or newer, and user namespaces must be allowed: sysctl user.max_user_namespaces, "
    "kernel.apparmor_restrict_unprivileged_userns=0, and in a container --security-opt seccomp=unconfined"
)
_CLOSED = (
    "what lies below a folder that only root may enter cannot be shown in the sandbox here: let others enter "
    "it (chmod o+x), move it, or start this container with --cap-add SYS_ADMIN"
)
_UNPRIVILEGED = (
    "/usr/bin/setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--pdeathsig=KILL",  # another user's process no longer ends with its parent, unless it is told to
)
# Root's part: binds folders below those that nobody may enter to a place where it may.
_OPEN = f"""set -e
mount -t tmpfs -o mode=755,size=64k none {_HELD}
count=0
while [ "$1" != -- ]; do
    mkdir {_HELD}/$count
    mount --rbind "$1" {_HELD}/$count
    count=$((count + 1))
    shift
done
shift
exec "$@"
"""


class Bubblewrap(Enclosed):
    """Runs commands in ``bwrap``, as an ordinary user or, where this is root, as nobody.

    Args:
        program: Where ``bwrap`` is.
        fault: Why programs of root cannot be shown what lies below a folder that nobody may enter; None
            where they can.
    """

    name = "bubblewrap"

    def __init__(self, program: str, fault: str | None = None) -> None:
        self._program = program
        self._fault = fault

    def _outcome(self, step: Step, files: Path, build: Path, building: Building) -> Outcome:
        with Status.opened() as status, refusing() as refused:
            arguments = self._arguments(step, files, build, _told(status.write, refused))
            kept = [handle for handle in (status.write, refused) if handle is not None]
            with started(Command(arguments, step.limits, step.stdin, kept=kept)) as running:
                status.begin()
                usage = Usage(status.pid or running.pid, step.limits)
                outcome = running.wait([usage.check, *building.checks], usage.was_large)
                running.kill()
                status.wait_for_death()
        return _as_inside(outcome, status.exit_code())

    def _arguments(self, step: Step, files: Path, build: Path, told: Sequence[str]) -> list[str]:
        shown = [
            _Shown(files.resolve(), JOB, False),
            _Shown(build.resolve(), BUILD, step.builds),
            *(_Shown(path.resolve(), str(path), False) for path in step.visible),
        ]
        if os.geteuid():
            return [*self._inside(step, shown, told)]
        if all(_may_be_entered(one.here) for one in shown):
            return [*_UNPRIVILEGED, *self._inside(step, shown, told)]
        if self._fault is not None:
            closed = ", ".join(str(one.here) for one in shown if not _may_be_entered(one.here))
            raise PermissionError(f"{closed}: {self._fault}")
        held = [one._replace(here=Path(f"{_HELD}/{number}")) for number, one in enumerate(shown)]
        return [*_opened([one.here for one in shown]), *_UNPRIVILEGED, *self._inside(step, held, told)]

    def _inside(self, step: Step, shown: Sequence[_Shown], told: Sequence[str]) -> Iterator[str]:
        limits = step.limits
        yield from (self._program, "--unshare-all", "--unshare-user", "--disable-userns")
        yield from ("--die-with-parent", "--new-session", *told, "--clearenv")
        for name, value in step.environment.items():
            yield from ("--setenv", name, value)
        yield from (*system(), "--proc", "/proc", "--dev", "/dev")
        yield from (
            "--size",
            str(SHARED_MEMORY),
            "--perms",
            "1777",
            "--tmpfs",
            "/dev/shm",
            "--remount-ro",
            "/dev",
        )
        yield from ("--size", str(limits.disk), "--perms", "1777", "--tmpfs", "/tmp")
        yield from folders(str(Path(one.inside).parent) for one in shown if one.inside not in {JOB, BUILD})
        for one in shown:
            yield from one.arguments()
        yield from ("--remount-ro", "/", "--chdir", "/tmp", "--", *limited(limits), *step.command)


def find_bubblewrap() -> Sandbox:
    """Bubblewrap as it is here, tried out.

    Raises:
        UnusableError: It is not installed, or does not work.
    """
    for name in _NEEDED:
        if shutil.which(name) is None:
            raise UnusableError(f"{name} is not installed ({_INSTALL})")
    sandbox = Bubblewrap(shutil.which("bwrap") or "bwrap")
    fault = try_out(sandbox, _TRIAL)
    if fault is not None:
        raise UnusableError(f"bubblewrap is here but does not work: {fault} ({_HELP})")
    return sandbox if os.geteuid() else _of_root(sandbox)


def _of_root(sandbox: Bubblewrap) -> Sandbox:
    """Root's tools may lie in closed folders; where those cannot be shown, the rest can still be used."""
    fault = try_closed(sandbox, _TRIAL)
    if fault is None:
        return sandbox
    known = f"{_CLOSED} ({fault})"
    log.warning("%s", known)
    return Bubblewrap(sandbox._program, known)


def _told(status: int, refused: int | None) -> list[str]:
    """Arguments that name the file descriptors which ``bwrap`` itself is given."""
    filtered = [] if refused is None else ["--seccomp", str(refused)]
    return ["--json-status-fd", str(status), *filtered]


def _may_be_entered(folder: Path) -> bool:
    """Whether everybody may enter a folder, and all above it."""
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))


def _opened(folders: Sequence[Path]) -> list[str]:
    """What a command is begun with that finds folders at `_HELD`, by their number; none else does."""
    begin = ["/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", _OPEN, "sh"]
    return [*begin, *map(str, folders), "--"]


class _Shown(NamedTuple):
    here: Path
    inside: str
    written: bool

    def arguments(self) -> list[str]:
        return ["--bind" if self.written else "--ro-bind", str(self.here), self.inside]


def _as_inside(outcome: Outcome, code: int | None) -> Outcome:
    if outcome.end is not End.EXITED:
        return outcome
    if code is None:
        reason = outcome.stderr.strip() or "bubblewrap ended without a word"
        return outcome._replace(end=End.ERROR, exit_code=None, reason=reason)
    return outcome._replace(exit_code=plain_code(code))
