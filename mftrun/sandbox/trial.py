"""A sandbox is trusted once a command has run inside it, and has not reached what it must not."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mftrun.sandbox.base import JOB, End, Limits, Outcome, Sandbox, Step

_SECRET = "secret"
_SAID = "inside"
_SCRIPT = f"cat {JOB}/word && test ! -e $0 && ! touch {JOB}/new 2>/dev/null"


class UnusableError(Exception):
    """A sandbox that does not work here; says why, and what to do."""


def try_out(sandbox: Sandbox, seconds: float) -> str | None:
    """Runs a small command that looks around.

    Args:
        sandbox: What is tried.
        seconds: Time that the command may take.

    Returns:
        Why the sandbox does not work; None where it does.
    """
    return _tried(sandbox, seconds, 0o755)


def try_closed(sandbox: Sandbox, seconds: float) -> str | None:
    """The same with folders that lie below one which only its owner may enter.

    Args:
        sandbox: What is tried.
        seconds: Time that the command may take.

    Returns:
        Why the sandbox does not show them; None where it does.
    """
    return _tried(sandbox, seconds, 0o700)


def _tried(sandbox: Sandbox, seconds: float, mode: int) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(mode)
        files, build = Path(folder, "files"), Path(folder, "build")
        files.mkdir()
        build.mkdir()
        (files / "word").write_text(_SAID)
        outside = Path(folder, _SECRET)
        outside.touch()
        step = Step(("/bin/sh", "-c", _SCRIPT, str(outside)), Limits(seconds))
        return _fault(sandbox.run(step, files, build))


def _fault(outcome: Outcome) -> str | None:
    if outcome.end is End.EXITED and outcome.exit_code == 0 and outcome.stdout == _SAID:
        return None
    return outcome.reason or outcome.stderr.strip() or f"a trial ended with {outcome.end.value}"
