"""A container engine: docker, podman, or what takes their arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mftrun.sandbox.base import BUILD, JOB, End, Limits, Outcome, Sandbox, Step
from mftrun.sandbox.building import Building
from mftrun.sandbox.enclosed import Enclosed
from mftrun.sandbox.process import Command, started
from mftrun.sandbox.rlimits import NOBODY, OPEN_FILES, SHARED_MEMORY, plain_code
from mftrun.sandbox.trial import UnusableError, try_out

_ENGINES = ("docker", "podman")
_ANSWER = 10.0  # seconds that an engine has to answer
_TRIAL = 120.0  # the same to run a command in the image, which is not fetched
_START = 2.0  # seconds that a container takes to start and to go, beside those of its command
_NO_TOOL = 127  # what the script below says where the image lacks a tool; engines say the same of a shell
# Says that the command begins, as an engine's exit codes may as well be those of the command.
_BEGIN = f'command -v "$1" >/dev/null || exit {_NO_TOOL}; printf "%s\\n" "$0" >&2; exec "$@"'
_PROCESSES = 4096  # of all containers together; --pids-limit is that of one
_PLACES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "CONTAINER_HOST", "XDG_RUNTIME_DIR")
_KNOWN = ("PATH", "HOME", *_PLACES)


class Container(Enclosed):
    """Runs each command in a container of its own, without network, as an unprivileged user.

    Args:
        engine: Its program.
        image: What the container is made of; it must be here already.
    """

    def __init__(self, engine: str, image: str) -> None:
        self._engine = engine
        self._image = image
        self.name = f"{Path(engine).name} with {image}"

    def _outcome(self, step: Step, files: Path, build: Path, building: Building) -> Outcome:
        name = f"mftrun-{uuid.uuid4().hex}"
        arguments = [self._engine, *self._arguments(step, files, build, name)]
        limits = replace(step.limits, seconds=step.limits.seconds + _START)
        outcome = None
        try:
            with started(Command(arguments, limits, step.stdin, engine_environment())) as running:
                outcome = running.wait(building.checks)
        finally:
            if outcome is None or outcome.end is not End.EXITED:
                self._remove(name)
        return self._as_inside(outcome, name, step.command[0])

    def _arguments(self, step: Step, files: Path, build: Path, name: str) -> Iterator[str]:
        yield from ("run", "--rm", "--interactive", "--pull", "never", "--name", name, "--workdir", "/tmp")
        yield from ("--network", "none", "--read-only", "--cap-drop", "ALL", "--ipc", "private")
        yield from ("--security-opt", "no-new-privileges", "--user", _user(), *_own_ids(self._engine))
        yield from _limits(step.limits)
        yield from _mount(files, JOB, "ro")
        yield from _mount(build, BUILD, "rw" if step.builds else "ro")
        for path in step.visible:
            yield from _mount(path.resolve(), str(path), "ro")
        for variable, value in step.environment.items():
            yield from ("--env", f"{variable}={value}")
        yield from ("--entrypoint", "/bin/sh", self._image, "-c", _BEGIN, name, *step.command)

    def _as_inside(self, outcome: Outcome, word: str, tool: str) -> Outcome:
        """What the command did, which has begun where the word was said; else what the engine did."""
        before, said, after = outcome.stderr.partition(f"{word}\n")
        code = outcome.exit_code
        if said:
            outcome = outcome._replace(stderr=after)
        if outcome.end is not End.EXITED or code is None:
            return outcome
        if said:
            return outcome._replace(exit_code=plain_code(code))
        reasons = [f"the image {self._image} lacks {tool}"] if code == _NO_TOOL else []
        reasons += [before.strip() or f"the engine ended with {code} before the command began"]
        return outcome._replace(end=End.ERROR, exit_code=None, reason=": ".join(reasons))

    def _remove(self, name: str) -> None:
        """Ends the container: it goes on without its client."""
        _ask(self._engine, "rm", "--force", name)


def find_container(image: str, engine: str | None = None) -> Sandbox:
    """The first container engine that answers, tried out with an image.

    Args:
        image: Name of the image.
        engine: Program of the engine; None tries docker and podman.

    Raises:
        UnusableError: None answers, or the image does not work.
    """
    tried = _ENGINES if engine is None else (engine,)
    for program in filter(None, map(shutil.which, tried)):
        if _ask(program, "info") != 0:
            continue
        sandbox = Container(program, image)
        fault = try_out(sandbox, _TRIAL)
        if fault is not None:
            hint = f"the image must be here: {program} pull {image}"
            raise UnusableError(f"{sandbox.name} does not work: {fault} ({hint})")
        return sandbox
    asked = " and ".join(tried)
    raise UnusableError(f"no container engine answers ({asked}): start it, or apt-get install podman")


def engine_environment() -> dict[str, str]:
    """What an engine's client is told of this environment; containers are told nothing of it."""
    return {name: os.environ[name] for name in _KNOWN if name in os.environ}


def _ask(engine: str, *arguments: str) -> int | None:
    """The exit code of a question to the engine; None where it does not answer in time."""
    try:
        return subprocess.run(
            [engine, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER,
            env=engine_environment(),
            check=False,
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return None


def _user() -> str:
    """Nobody; or this user, who must be able to read and to remove what the container writes."""
    return f"{os.geteuid()}:{os.getegid()}" if os.geteuid() else f"{NOBODY}:{NOBODY}"


def _own_ids(engine: str) -> tuple[str, ...]:
    """Podman gives an ordinary user's containers other user ids, unless it is told to keep them."""
    return ("--userns", "keep-id") if os.geteuid() and Path(engine).name == "podman" else ()


def _mount(path: Path, inside: str, how: str) -> tuple[str, str]:
    return "--volume", f"{path.absolute()}:{inside}:{how}"


def _limits(limits: Limits) -> Iterator[str]:
    memory = str(limits.memory)
    yield from ("--memory", memory, "--memory-swap", memory, "--pids-limit", str(limits.processes))
    yield from ("--shm-size", str(SHARED_MEMORY), "--ulimit", "core=0", "--ulimit", f"nofile={OPEN_FILES}")
    yield from ("--ulimit", f"fsize={limits.disk}", "--ulimit", f"nproc={_PROCESSES}")
    yield from ("--tmpfs", f"/tmp:rw,exec,nosuid,nodev,mode=1777,size={limits.disk}")
