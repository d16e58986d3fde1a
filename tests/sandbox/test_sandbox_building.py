"""What a compiler leaves in its folder, and whether it found room there."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from sandboxed import run_code

from mftrun.sandbox import folders
from mftrun.sandbox.base import End, Limits, Outcome, Step
from mftrun.sandbox.building import Building
from mftrun.sandbox.folders import DEEP, empty, tidy
from mftrun.sandbox.unsafe import Unsafe

LIMITS = Limits(5, disk=1 << 20)
NEST = """
import os, sys
os.chdir(sys.argv[1])
for number in range(1500):
    os.mkdir('a')
    open('file', 'w').close()
    os.chdir('a')
"""
FAILED = Outcome(End.EXITED, 1, "", "", 0.0)
SAID = f"ld: {os.strerror(errno.ENOSPC)}\n"


def nest(folder, names):
    """Makes folders in one another that no path reaches."""
    handle = os.open(folder, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=handle)
        os.close(os.open("file", os.O_CREAT, dir_fd=handle))
        below = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)


def left(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_very_deep_folders_end_a_build_and_are_removed(bubblewrap, caller):
    def build():
        found = run_code(bubblewrap, NEST, arguments=["/build"], builds=True)  # removes the folder
        return found.end

    assert caller(build) is End.OUTPUT


def test_they_are_removed_without_a_sandbox_as_well():
    code = NEST.replace("1500", "100")
    assert run_code(Unsafe(), code, arguments=["/build"]).end is End.OUTPUT
    assert run_code(Unsafe(), code, arguments=["."]).end is End.OUTPUT


@pytest.mark.parametrize("names", [["a"] * 100, ["n" * 200] * 12], ids=["many", "long"])
def test_folders_that_go_too_deep_are_emptied(tmp_path, names):
    nest(tmp_path, names)
    end, reason = tidy(tmp_path, LIMITS)
    assert (end, left(tmp_path)) == (End.OUTPUT, [])
    assert "deep" in reason


def test_folders_as_deep_as_a_programs_stay(tmp_path):
    nest(tmp_path, ["a"] * (DEEP - 1))
    assert tidy(tmp_path, LIMITS) is None
    assert left(tmp_path) == ["a", "file"]


def test_what_grew_too_large_unseen_is_found_at_the_end(tmp_path, monkeypatch):
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    assert tidy(tmp_path, LIMITS)[0] is End.OUTPUT
    assert left(tmp_path) == []
    monkeypatch.setattr(folders, "MANY", 9)
    for number in range(9):
        (tmp_path / str(number)).touch()
    assert tidy(tmp_path, LIMITS)[0] is End.OUTPUT
    assert left(tmp_path) == []


def test_closed_folders_links_and_pipes_are_removed_and_nothing_behind_them(tmp_path):
    folder, beside = tmp_path / "folder", tmp_path / "beside"
    (folder / "closed" / "below").mkdir(parents=True)
    beside.mkdir()
    (beside / "kept").touch()
    (folder / "link").symlink_to(beside)
    (folder / "closed" / "link").symlink_to(beside)
    os.mkfifo(folder / "closed" / "below" / "pipe")
    (folder / "closed" / "below").chmod(0)
    (folder / "closed").chmod(0)
    empty(folder)
    assert (left(folder), left(beside)) == ([], ["kept"])


@pytest.fixture
def space(monkeypatch):
    """Says how many bytes are left on the disk."""
    seen = SimpleNamespace(f_blocks=1 << 20, f_frsize=1, f_bavail=1 << 30, f_files=100, f_favail=50)
    monkeypatch.setattr(os, "statvfs", lambda path: seen)
    return seen


def judged(folder, outcome):
    return Building(Step(["cc"], LIMITS, builds=True), folder).ended(outcome)


@pytest.mark.parametrize("full", [{"f_bavail": 0}, {"f_favail": 0}], ids=["bytes", "files"])
def test_a_build_that_fails_on_a_full_disk_says_nothing_of_the_program(tmp_path, space, full):
    vars(space).update(full)
    found = judged(tmp_path, FAILED)
    assert (found.end, found.exit_code) == (End.ERROR, None)
    assert found.reason == f"no space left on device in {tmp_path}"
    assert judged(tmp_path, FAILED._replace(exit_code=0)).end is End.EXITED


def test_a_disk_that_was_full_for_a_moment_is_remembered(tmp_path, space):
    building = Building(Step(["cc"], LIMITS, builds=True), tmp_path)
    space.f_bavail = 0
    assert [check() for check in building.checks] == [None, None]
    space.f_bavail = 1 << 30
    assert building.ended(FAILED).end is End.ERROR


def test_a_compiler_is_believed_where_less_is_left_than_promised(tmp_path, space):
    space.f_bavail = LIMITS.disk * 2
    assert judged(tmp_path, FAILED._replace(stderr=SAID)).end is End.EXITED
    promised = Building(Step(["cc"], Limits(5), builds=True), tmp_path)
    assert promised.ended(FAILED._replace(stderr=SAID)).end is End.ERROR
    assert promised.ended(FAILED).end is End.EXITED


def test_a_file_system_that_does_not_say_its_size_is_not_full(tmp_path, space):
    vars(space).update(f_blocks=0, f_bavail=0)
    assert judged(tmp_path, FAILED).end is End.EXITED
