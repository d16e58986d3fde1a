"""Without a sandbox: what is still held."""

from sandboxed import run_code

from mftrun.sandbox.base import End, Limits, Step
from mftrun.sandbox.unsafe import Unsafe


def test_places_are_those_of_this_machine(tmp_path):
    files, build = tmp_path / "files", tmp_path / "build"
    files.mkdir()
    build.mkdir()
    (files / "given").write_text("given")
    script = "cat $FILE; echo made > $1; echo $2 $3; pwd"
    step = Step(
        ("/bin/sh", "-c", script, "-", "/build/made", "-I/job:/build", "/usr/lib/job"),
        Limits(5),
        {"FILE": "/job/given", "PATH": "/usr/bin:/bin"},
    )
    found = Unsafe().run(step, files, build)
    assert found.stdout.splitlines()[0] == f"given-I{files}:{build} /usr/lib/job"
    assert (build / "made").read_text() == "made\n"


def test_limits_and_environment_hold(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "hidden")
    assert "hidden" not in run_code(Unsafe(), "import os; print(os.environ)").stdout
    assert run_code(Unsafe(), "while True: pass", seconds=0.3).end is End.TIMEOUT
    assert run_code(Unsafe(), "while True: print('x' * 9999)", output=4096).end is End.OUTPUT
    assert "MemoryError" in run_code(Unsafe(), "bytearray(8 << 30)").stderr


def test_exit_codes_and_signals_are_told():
    assert run_code(Unsafe(), "import sys; sys.exit(5)").exit_code == 5
    assert run_code(Unsafe(), "import os; os.kill(os.getpid(), 11)").exit_code == -11
