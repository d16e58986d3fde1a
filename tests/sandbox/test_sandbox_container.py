"""What a container engine is asked for; a script stands in for it."""

from itertools import pairwise

import pytest
from sandboxed import run_code

from mftrun.sandbox.base import End, Limits, Step
from mftrun.sandbox.container import Container, find_container
from mftrun.sandbox.trial import UnusableError

ENGINE = """#!/bin/sh
folder=$(dirname "$0")
printf '%s\\n' "$@" >> "$folder/$1"
case $1 in
info) exit {info} ;;
run)
    for name; do [ "$before" = --name ] && break; before=$name; done
    {run} ;;
esac
"""
BEGIN = "echo $name >&2; "  # what the shell inside says before the program
INSIDE = """while [ "$1" != -c ]; do shift; done; exec /bin/sh "$@" """  # the shell itself


@pytest.fixture
def engine(tmp_path):
    """Makes a program that notes its arguments and does as it is told."""

    def make(run=BEGIN + "printf inside", info=0):
        path = tmp_path / "engine"
        path.write_text(ENGINE.format(run=run, info=info))
        path.chmod(0o755)
        return str(path)

    return make


def ask(engine, tmp_path, **settings):
    files, build = tmp_path / "files", tmp_path / "build"
    files.mkdir()
    build.mkdir()
    command = settings.pop("command", ("/usr/bin/cat", "a b"))
    step = Step(command, Limits(5, memory=1 << 30, processes=9), {"NAME": "value"}, **settings)
    found = Container(engine, "tools").run(step, files, build)
    return found, (tmp_path / "run").read_text().splitlines()


def follow(arguments, name):
    """What stands behind each `name`."""
    return [after for before, after in pairwise(arguments) if before == name]


def test_a_container_is_closed(engine, tmp_path):
    found, asked = ask(engine(BEGIN + "cat; exit 3"), tmp_path, stdin=b"word")
    assert (found.end, found.exit_code, found.stdout) == (End.EXITED, 3, "word")
    assert {"--rm", "--read-only", "--interactive"} <= set(asked)
    for name, value in {
        "--network": "none",
        "--cap-drop": "ALL",
        "--security-opt": "no-new-privileges",
        "--pull": "never",
        "--memory": str(1 << 30),
        "--memory-swap": str(1 << 30),
        "--pids-limit": "9",
        "--env": "NAME=value",
    }.items():
        assert follow(asked, name) == [value]
    assert not follow(asked, "--user")[0].startswith("0:")
    assert follow(asked, "--entrypoint") == ["/bin/sh"]
    assert asked[-2:] == ["/usr/bin/cat", "a b"]
    assert not (tmp_path / "rm").exists()


@pytest.mark.parametrize(("builds", "how"), [(True, "rw"), (False, "ro")])
def test_only_a_build_writes_in_its_folder(engine, tmp_path, builds, how):
    _, asked = ask(engine(), tmp_path, builds=builds, visible=[tmp_path])
    assert follow(asked, "--volume") == [
        f"{tmp_path}/files:/job:ro",
        f"{tmp_path}/build:/build:{how}",
        f"{tmp_path}:{tmp_path}:ro",
    ]


def test_the_engine_is_not_told_of_this_environment(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("A_TOKEN", "hidden")
    found, _ = ask(engine(BEGIN + "env"), tmp_path)
    assert "hidden" not in found.stdout
    assert "PATH=" in found.stdout


def test_an_engines_own_failure_is_no_failure_of_the_program(engine, tmp_path):
    found, _ = ask(engine("echo no such image >&2; exit 125"), tmp_path)
    assert (found.end, found.exit_code, found.reason) == (End.ERROR, None, "no such image")


@pytest.mark.parametrize("code", [125, 126, 127])
def test_a_program_may_end_as_an_engine_does(engine, tmp_path, code):
    command = ("/bin/sh", "-c", f"echo no such image >&2; exit {code}")
    found, _ = ask(engine(INSIDE), tmp_path, command=command)
    assert (found.end, found.exit_code, found.stderr) == (End.EXITED, code, "no such image\n")


def test_an_engine_that_ends_before_the_program_begins_has_failed(engine, tmp_path):
    found, _ = ask(engine("echo it went away >&2; exit 1"), tmp_path)
    assert (found.end, found.reason) == (End.ERROR, "it went away")


@pytest.mark.parametrize("run", [INSIDE, "echo executable file not found >&2; exit 127"])
def test_a_tool_that_the_image_lacks_is_no_failure_of_the_program(engine, tmp_path, run):
    found, _ = ask(engine(run), tmp_path, command=("/usr/bin/no-such-tool",))
    assert found.end is End.ERROR
    assert "the image tools lacks /usr/bin/no-such-tool" in found.reason


def test_what_an_engine_says_before_the_program_begins_is_not_the_programs(engine, tmp_path):
    found, _ = ask(engine("echo WARNING >&2; " + BEGIN + "echo own >&2"), tmp_path)
    assert (found.end, found.stderr) == (End.EXITED, "own\n")


def test_a_container_is_removed_where_its_client_was_ended(engine, tmp_path):
    program = engine("yes")
    assert run_code(Container(program, "tools"), "", output=4096).end is End.OUTPUT
    name = follow((tmp_path / "run").read_text().splitlines(), "--name")
    assert (tmp_path / "rm").read_text().splitlines() == ["rm", "--force", *name]


def test_an_engine_is_taken_that_answers_and_runs_the_image(engine):
    assert "tools" in find_container("tools", engine()).name
    with pytest.raises(UnusableError, match="no container engine answers"):
        find_container("tools", engine(info=1))
    with pytest.raises(UnusableError, match=r"no such image.*pull tools"):
        find_container("tools", engine("echo no such image >&2; exit 125"))
    with pytest.raises(UnusableError, match="no container engine answers"):
        find_container("tools", "/nowhere/engine")
