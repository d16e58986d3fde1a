"""Python code in a sandbox, and what it leaves behind."""

import os
import pickle
import select
import tempfile
import time
from pathlib import Path

from mftrun.sandbox import container  # noqa: F401  (nothing can be imported any more once this is another user)
from mftrun.sandbox.base import Limits, Step

PYTHON = "/usr/bin/python3"
USER = 12345


def as_user(action):
    """What `action` returns, when an ordinary user calls it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
            found = (True, action())
        except BaseException as error:
            found = (False, repr(error))
        os.write(write, pickle.dumps(found))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        done, value = pickle.loads(stream.read())
    os.waitpid(child, 0)
    assert done, value
    return value


def run_code(sandbox, code, build=None, arguments=(), seconds=10.0, **settings):
    """Runs Python code; further settings are those of `Limits` and `Step`."""
    bounds = {name: settings.pop(name) for name in list(settings) if name in Limits.__annotations__}
    step = Step((PYTHON, "-c", code, *arguments), Limits(seconds, **bounds), **settings)
    with tempfile.TemporaryDirectory() as folder:
        files, own = Path(folder, "files"), Path(folder, "build")
        files.mkdir()
        own.mkdir()
        (files / "given").write_text("given")
        return sandbox.run(step, files, build or own)


def processes(marker, program=None):
    """Numbers of this machine's processes that have `marker` among their arguments, and are a `program`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (path / "cmdline").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if marker in arguments and program in (None, arguments[0]):
            found.append(int(path.name))
    return found


def wait_for_program(marker, seconds=10.0):
    """Numbers of the processes that have `marker` among their arguments, once Python is one of them."""
    deadline = time.monotonic() + seconds
    while not processes(marker, PYTHON):
        assert time.monotonic() < deadline
    return processes(marker)


def wait_for_end(pids, seconds=10.0):
    """Waits until processes are gone."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(seconds * 1000), pid
        os.close(handle)
