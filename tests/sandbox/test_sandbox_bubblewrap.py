"""What a command finds in bubblewrap, and what is said of how it ended."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sandboxed import run_code

from mftrun.sandbox.base import End
from mftrun.sandbox.bubblewrap import Bubblewrap, find_bubblewrap
from mftrun.sandbox.trial import try_out


def test_a_command_is_run_as_somebody_without_rights(inside):
    found = inside("import os, sys; print(os.getuid()); print(os.getcwd(), file=sys.stderr); sys.exit(3)")
    assert (found.end, found.exit_code, found.stderr) == (End.EXITED, 3, "/tmp\n")
    assert int(found.stdout) != 0
    assert "CapEff:\t0000000000000000" in inside("print(open('/proc/self/status').read())").stdout


def test_a_signal_is_a_negative_exit_code(inside):
    assert inside("import os; os.kill(os.getpid(), 11)").exit_code == -11


def test_its_files_are_read_and_its_input(inside):
    assert inside("print(open('/job/given').read(), input())", stdin=b"said").stdout == "given said\n"


def test_long_input_arrives_whole_and_need_not_be_read(inside):
    assert inside("import sys; print(len(sys.stdin.read()))", stdin=b"x" * 300_000).stdout == "300000\n"
    assert inside("pass", stdin=b"x" * 300_000).exit_code == 0


def test_a_build_is_there_for_the_next_step_and_no_longer_written(bubblewrap, tmp_path):
    run_code(bubblewrap, "open('/build/made', 'w').write('made')", build=tmp_path, builds=True)
    found = run_code(
        bubblewrap, "print(open('/build/made').read()); open('/build/made', 'w')", build=tmp_path
    )
    assert found.stdout == "made\n"
    assert "Read-only" in found.stderr or "Permission denied" in found.stderr


def test_a_folder_below_a_closed_one_is_seen_where_it_is(bubblewrap, tmp_path):
    shown = tmp_path / "closed" / "shown"
    shown.mkdir(parents=True)
    (shown / "file").write_text("seen")
    (tmp_path / "closed" / "beside").touch()
    (tmp_path / "closed").chmod(0o700)
    code = f"import os; print(open('{shown}/file').read(), os.listdir('{shown.parent}'))"
    assert run_code(bubblewrap, code, visible=[shown]).stdout == "seen ['shown']\n"


def test_roots_closed_folders_are_tried_before_they_are_needed(bubblewrap, monkeypatch, caplog):
    if os.geteuid():
        pytest.skip("only root's programs are shown what others may not enter")
    monkeypatch.setattr("mftrun.sandbox.bubblewrap._OPEN", "echo not permitted >&2; exit 1")
    sandbox = find_bubblewrap()
    assert "--cap-add SYS_ADMIN (not permitted)" in caplog.text
    assert try_out(sandbox, 10) is None
    found = run_code(sandbox, "pass")  # its folders are closed
    assert found.end is End.ERROR
    assert found.reason.startswith(tempfile.gettempdir())
    assert "--cap-add SYS_ADMIN" in found.reason


def test_many_run_at_once(bubblewrap):
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda number: run_code(bubblewrap, f"print({number})").stdout, range(12))
        assert list(found) == [f"{number}\n" for number in range(12)]


@pytest.mark.parametrize("program", ["/nowhere/bwrap", "/bin/false"])
def test_a_sandbox_that_does_not_start_is_no_failure_of_the_program(program):
    found = run_code(Bubblewrap(program), "print('run')")
    assert (found.end, found.exit_code) == (End.ERROR, None)
    assert found.reason


def test_a_folder_that_is_not_there_is_an_error_that_names_it(bubblewrap):
    found = run_code(bubblewrap, "pass", visible=[Path("/nowhere/at/all")])
    assert found.end is End.ERROR
    assert "/nowhere/at/all" in found.reason
