"""Which sandbox is taken, and what is said where none works."""

import logging
import math
from pathlib import Path

import pytest
import yaml

from mftrun.errors import ConfigError
from mftrun.sandbox import choice
from mftrun.sandbox.base import End, Limits, Outcome, SandboxOption, Step
from mftrun.sandbox.choice import Auto, BubblewrapOnly, ContainerOnly
from mftrun.sandbox.trial import UnusableError, try_out
from mftrun.sandbox.unsafe import Unsafe

CONF = Path(__file__).parents[2] / "conf" / "sandbox"


class Recorder:
    """Runs nothing."""

    name = "recorder"

    def __init__(self, outcome=None):
        self.outcome = outcome or Outcome(End.EXITED, 0, "inside", "", 0.0)
        self.step = None

    def run(self, step, files, build):
        self.step = step
        return self.outcome


@pytest.fixture
def finders(monkeypatch):
    """Neither kind of sandbox works, unless a test says so."""

    def set_up(bubblewrap=None, container=None):
        def finder(found, reason):
            def find(*arguments):
                if found is None:
                    raise UnusableError(reason)
                return found

            return find

        monkeypatch.setattr(choice, "find_bubblewrap", finder(bubblewrap, "bwrap is not installed"))
        monkeypatch.setattr(choice, "find_container", finder(container, "no engine answers"))

    return set_up


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_groups_options_are_options(path):
    settings = yaml.safe_load(path.read_text())
    option = getattr(choice, settings.pop("_target_").rpartition(".")[2])(**settings)
    assert isinstance(option, SandboxOption)
    assert settings == vars(option)


def test_a_container_comes_first_where_an_image_is_named(finders):
    bubblewrap, container = Recorder(), Recorder()
    finders(bubblewrap, container)
    assert Auto(image="tools").open() is container
    assert Auto().open() is bubblewrap
    finders(bubblewrap)
    assert Auto(image="tools").open() is bubblewrap
    with pytest.raises(ConfigError, match="no engine answers"):
        ContainerOnly(image="tools").open()


def test_without_a_sandbox_nothing_is_run_unless_it_is_allowed(finders, caplog):
    finders()
    with pytest.raises(ConfigError, match=r"^sandbox: .*not installed.*sandbox.allow_unsafe=true"):
        BubblewrapOnly().open()
    with caplog.at_level(logging.WARNING):
        assert isinstance(BubblewrapOnly(allow_unsafe=True).open(), Unsafe)
    assert "NO SANDBOX" in caplog.text


def test_an_allowed_lack_is_not_taken_where_a_sandbox_works(finders):
    bubblewrap = Recorder()
    finders(bubblewrap)
    assert Auto(allow_unsafe=True).open() is bubblewrap


def test_what_is_missing_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"bwrap is not installed.*apt-get install bubblewrap"):
        Auto().open()


def test_a_limit_of_memory_replaces_that_of_languages(finders, tmp_path):
    recorder = Recorder()
    finders(recorder)
    Auto(memory_gb=1.5).open().run(Step(("true",), Limits(1, memory=7, output=9)), tmp_path, tmp_path)
    assert (recorder.step.limits.memory, recorder.step.limits.output) == (3 << 29, 9)


@pytest.mark.parametrize(
    ("key", "value"), [("workers", 0), ("memory_gb", 0), ("memory_gb", -1.0), ("memory_gb", math.inf)]
)
def test_numbers_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"^sandbox.{key}"):
        Auto(**{key: value})


def test_a_container_needs_an_image():
    with pytest.raises(ConfigError, match=r"^sandbox.image"):
        ContainerOnly().open()


def test_a_trial_finds_what_is_no_sandbox(bubblewrap):
    assert try_out(bubblewrap, 20) is None
    assert try_out(Unsafe(), 20) is not None
    assert try_out(Recorder(), 20) is None
    assert "broken" in try_out(Recorder(Outcome(End.ERROR, None, "", "", 0.0, "broken")), 20)
