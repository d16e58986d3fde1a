"""What a process says, and what is made of its end."""

import itertools
import signal
import tempfile

import pytest
from sandboxed import run_code

from mftrun.sandbox import process
from mftrun.sandbox.base import End, Limits
from mftrun.sandbox.process import Command, started

KILLED = """
import os, time
held = bytearray(b'1') * ({mib} << 20)
time.sleep({seconds})
os.kill(os.getpid(), 9)
"""


def test_what_is_said_takes_no_room_on_a_disk(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with started(Command(["/bin/sh", "-c", "echo out; echo err >&2"], Limits(5))) as running:
        found = running.wait()
    assert (found.stdout, found.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("mib", "seconds", "end", "code"),
    [(1, 0, End.EXITED, -signal.SIGKILL), (256, 0.3, End.MEMORY, None)],
    ids=["small", "large"],
)
def test_only_a_large_program_is_one_that_the_kernel_ended(bubblewrap, monkeypatch, mib, seconds, end, code):
    counted = itertools.count()  # the kernel ends something on this machine all the time
    monkeypatch.setattr(process, "oom_kills", lambda: next(counted))
    found = run_code(bubblewrap, KILLED.format(mib=mib, seconds=seconds))
    assert found.end is end
    assert code in (None, found.exit_code)
