"""What programs try that nobody has read: each attack runs as root's nobody and as an ordinary user."""

import errno
import os
import platform
import signal
import socket
import tempfile
from pathlib import Path

import pytest
from sandboxed import processes, run_code, wait_for_end, wait_for_program

from mftrun.sandbox.base import End

KNOWN = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "aarch64"}, reason="system calls are not known"
)
REAL = "import os; print(os.path.exists({path!r}))"
ENVIRONMENTS = """
import glob
for path in ['/proc/1/environ', *glob.glob('/proc/*/environ')]:
    try:
        print(open(path).read())
    except OSError:
        pass
"""
BOMB = """
import os, time
count = 0
try:
    while os.fork():
        count += 1
    time.sleep(30)
except OSError:
    print(count)
"""
ORPHAN = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(0); os.close(1); os.close(2)
        time.sleep(3)
    os._exit(0)
os.wait()
"""
WRITE = """
import sys
for path in sys.argv[1:]:
    try:
        open(path, 'a').write('x')
        print('written', path)
    except OSError:
        pass
"""
PLACES = (
    "/x /usr/x /usr/bin/env /etc/x /dev/x /sys/x /job/x /job/given /build/x /proc/x /proc/sys/kernel/hostname"
)
FILL = """
import sys
for number in range(64):
    try:
        open(f'{sys.argv[1]}/{number}', 'wb').write(bytes(1 << 20))
    except OSError:
        break
print(number)
"""
KILL = """
import os
for pid in (1, os.getppid(), -1):
    try:
        os.kill(pid, 9)
    except OSError:
        pass
print('left')
"""
DEAF = """
import signal
for number in set(signal.Signals) - {9, 19}:
    signal.signal(number, signal.SIG_IGN)
while True:
    pass
"""
SHARED = """
import mmap
held = mmap.mmap(-1, 1 << 30)
for place in range(0, len(held), 4096):
    held[place] = 1
"""
MANY_PROCESSES = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(b'1') * (64 << 20)
        time.sleep(30)
time.sleep(30)
"""
UNSEEN = """
import ctypes, os
library = ctypes.CDLL(None, use_errno=True)
try:
    print(os.memfd_create('x'))
except OSError as error:
    print(error.errno)
print(library.shmget(0, 4096, 0o1600))
"""
TRACE = """
import ctypes, os, time
child = os.fork()
if child == 0:
    time.sleep(5)
    os._exit(0)
print(ctypes.CDLL(None).ptrace(16, child, 0, 0))
os.kill(child, 9)
"""
NAMESPACE = """
import ctypes
library = ctypes.CDLL(None, use_errno=True)
print(library.unshare(0x10000000), library.unshare(0x10000000 | 0x00020000))
"""
LINKS = """
import os
os.symlink('/etc/passwd', '/build/link')
os.symlink('/', '/build/root')
os.mkfifo('/build/pipe')
os.makedirs('/build/closed/below')
os.symlink('/etc/passwd', '/build/closed/link')
open('/build/closed/file', 'w').write('kept')
os.chmod('/build/closed', 0)
os.chmod('/build', 0)
"""


def connect(port):
    return f"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('connected')"


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_fork_bomb_is_held_to_its_number(inside):
    assert int(inside(BOMB, processes=40).stdout) < 40


def test_a_fork_bomb_ends_with_its_time(inside, marker):
    code = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    assert inside(code, processes=20, seconds=0.5, arguments=[marker]).end is End.TIMEOUT
    assert processes(marker) == []


def test_nothing_but_its_own_folders_can_be_written(inside):
    assert inside(WRITE, arguments=PLACES.split()).stdout == ""
    assert inside("open('/tmp/x', 'w'); open('/dev/shm/x', 'w'); print('written')").stdout == "written\n"


def test_files_of_this_machine_are_not_seen(inside, outside, tmp_path):
    secret = tmp_path / "secret"
    secret.touch()
    assert outside(REAL.format(path=str(secret))).stdout == "True\n"
    for path in (
        secret,
        "/root",
        "/home",
        "/etc/passwd",
        "/etc/shadow",
        "/var",
        "/run",
        "/sys",
        "/proc/1/root/home",
    ):
        assert inside(REAL.format(path=str(path))).stdout == "False\n", path


def test_the_network_is_not_reached(inside, outside, port):
    assert outside(connect(port)).stdout == "connected\n"
    assert "ConnectionRefused" in inside(connect(port)).stderr
    assert inside("import socket; print([name for _, name in socket.if_nameindex()])").stdout == "['lo']\n"


def test_an_endless_loop_ends(inside):
    found = inside("while True: pass", seconds=0.3)
    assert (found.end, found.exit_code) == (End.TIMEOUT, None)


def test_a_process_cannot_take_more_memory_than_it_may(inside):
    assert "MemoryError" in inside("bytearray(8 << 30)").stderr


@pytest.mark.parametrize("code", [SHARED, MANY_PROCESSES], ids=["shared", "processes"])
def test_all_processes_together_cannot_take_more_memory_than_they_may(inside, code):
    assert inside(code, memory=256 << 20, seconds=30).end is End.MEMORY


def test_output_is_cut_off(inside):
    found = inside("import sys\nwhile True: sys.stdout.write('x' * 100_000)", output=1 << 20, seconds=30)
    assert found.end is End.OUTPUT
    assert len(found.stdout) == 1 << 20


def test_a_short_program_with_too_much_output_is_found_as_well(inside):
    assert inside("print('x' * 5000)", output=4096).end is End.OUTPUT
    assert inside("print('x' * 4095)", output=4096).end is End.EXITED


def test_killing_everybody_hits_nobody_else(inside):
    assert inside(KILL).stdout == "left\n"


def test_orphans_die_with_the_program(inside, outside, marker):
    assert inside(ORPHAN, arguments=[marker]).exit_code == 0
    assert processes(marker) == []
    outside(ORPHAN, arguments=[marker])
    assert processes(marker) != []


def test_the_environment_of_this_process_is_not_seen(inside, outside, monkeypatch):
    monkeypatch.setenv("A_TOKEN", "hidden")
    assert (
        "hidden" in outside(f"import os; print(open('/proc/{os.getpid()}/environ').read(), 'hidden')").stdout
    )
    found = inside(ENVIRONMENTS, environment={"OWN": "seen"}).stdout
    assert "OWN=seen" in found
    assert "hidden" not in found
    assert "PATH" not in found


def test_other_processes_are_not_seen(inside):
    seen = inside(
        "import os; print(*[name for name in os.listdir('/proc') if name.isdigit()])"
    ).stdout.split()
    assert len(seen) <= 3


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_folders_in_memory_have_an_end(inside, folder):
    limit = 8 << 20 if folder == "/tmp" else 64 << 20
    assert int(inside(FILL, arguments=[folder], disk=8 << 20).stdout) <= limit >> 20


def test_very_many_files_end_a_program(inside):
    code = "number = 0\nwhile True:\n    open(f'/tmp/{number}', 'w').close()\n    number += 1"
    assert inside(code, seconds=60).end is End.OUTPUT


def test_no_namespaces_can_be_made_inside(inside):
    assert inside(NAMESPACE).stdout == "-1 -1\n"


@KNOWN
def test_memory_that_no_process_shows_is_refused(inside, outside):
    assert inside(UNSEEN).stdout == f"{errno.ENOSYS}\n-1\n"
    assert "-1" not in outside(UNSEEN).stdout


@KNOWN
def test_processes_cannot_be_traced(inside, outside):
    assert inside(TRACE).stdout == "-1\n"
    assert outside(TRACE).stdout == "0\n"


def test_a_program_may_do_as_it_likes_with_its_output(inside):
    assert inside("import os; os.dup2(2, 1); os.write(1, b'x'); os.close(1); os.close(2)").stderr == "x"
    assert inside("import os; os.write(1, b'long'); os.ftruncate(1, 0)").stdout == ""


def test_a_program_that_heeds_no_signal_ends(inside, marker):
    assert inside(DEAF, seconds=0.5, arguments=[marker]).end is End.TIMEOUT
    assert processes(marker) == []


def test_what_was_read_cannot_be_read_again(inside):
    found = inside("import os\nprint(os.read(0, 9), os.read(0, 9))\nos.lseek(0, 0, 0)", stdin=b"word")
    assert found.stdout == "b'word' b''\n"
    assert "Illegal seek" in found.stderr


def test_a_build_leaves_files_and_folders_only(bubblewrap, caller):
    def left():
        with tempfile.TemporaryDirectory() as folder:
            run_code(bubblewrap, LINKS, build=Path(folder), builds=True)
            return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))

    assert caller(left) == ["closed", "closed/below", "closed/file"]


def test_a_build_cannot_fill_the_disk(inside):
    code = f"import time\n{FILL}\ntime.sleep(30)"
    assert inside(code, arguments=["/build"], builds=True, disk=8 << 20, seconds=30).end is End.OUTPUT


def test_programs_end_with_who_runs_them(bubblewrap, marker):
    child = os.fork()
    if child == 0:
        run_code(bubblewrap, "import time; time.sleep(60)", arguments=[marker], seconds=60)
        os._exit(0)
    started = wait_for_program(marker)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_for_end(started)
