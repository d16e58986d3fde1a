import logging

import pytest

from mftrun.errors import ConfigError
from mftrun.tracking.base import RunInfo, Tracker, Trackers, fit_label
from mftrun.tracking.console import Console
from mftrun.tracking.jsonl import MetricsFile
from mftrun.tracking.tensorboard import TensorBoard
from mftrun.tracking.wandb import Wandb


class Spy:
    """A tracker that remembers its calls and fails where it is told to."""

    def __init__(self, fails=None, error=None):
        self.calls, self._fails, self._error = [], fails, error or RuntimeError("broken")

    def _take(self, name, *values):
        self.calls.append((name, *values))
        if name == self._fails:
            raise self._error

    def check(self):
        self._take("check")

    def start(self, run):
        self._take("start")

    def log(self, step, record):
        self._take("log", step, dict(record))

    def finish(self, summary, exit_code):
        self._take("finish", summary, exit_code)


@pytest.fixture
def run(tmp_path):
    return RunInfo(tmp_path, "demo", None, None, {}, ["a"], 10)


@pytest.mark.parametrize(
    "made", [MetricsFile(), Console(), TensorBoard(), Wandb(mode="offline"), Trackers({}), Spy()]
)
def test_everything_that_tracks_is_a_tracker(made):
    assert isinstance(made, Tracker)


def test_records_reach_every_tracker(run):
    one, two = Spy(), Spy()
    trackers = Trackers({"one": one, "none": None, "two": two})
    trackers.check()
    trackers.start(run)
    trackers.log(1, {"train/loss": 2.0})
    trackers.finish(None, 3)
    expected = [("check",), ("start",), ("log", 1, {"train/loss": 2.0}), ("finish", None, 3)]
    assert one.calls == two.calls == expected


def test_a_failing_tracker_is_named_once_and_left_out(run, caplog):
    good, bad = Spy(), Spy(fails="log", error=OSError("disk on fire"))
    trackers = Trackers({"bad": bad, "good": good})
    trackers.start(run)
    for step in (1, 2, 3):
        trackers.log(step, {})
    trackers.finish()
    assert [call[0] for call in good.calls] == ["start", "log", "log", "log", "finish"]
    assert [call[0] for call in bad.calls] == ["start", "log", "finish"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "bad" in warnings[0]
    assert "disk on fire" in warnings[0]


def test_even_a_users_error_does_not_stop_a_run_that_trains(run):
    trackers = Trackers({"bad": Spy(fails="log", error=ConfigError("tracker.bad", "no"))})
    trackers.start(run)
    trackers.log(1, {})
    assert trackers.names == []


def test_a_failing_start_or_finish_is_reported_and_survived(run, caplog):
    good = Spy()
    trackers = Trackers({"late": Spy(fails="finish"), "early": Spy(fails="start"), "good": good})
    trackers.start(run)
    assert trackers.names == ["late", "good"]
    trackers.finish()
    assert good.calls[-1] == ("finish", None, 0)
    assert "early failed to start" in caplog.text
    assert "late failed to finish" in caplog.text


@pytest.mark.parametrize("error", [ConfigError("tracker.two.mode", "log in"), KeyboardInterrupt()])
def test_a_users_error_at_the_start_stops_the_run_and_closes_the_others(run, error):
    one = Spy()
    trackers = Trackers({"one": one, "two": Spy(fails="start", error=error)})
    with pytest.raises(type(error)):
        trackers.start(run)
    assert one.calls[-1] == ("finish", None, 1)


def test_check_passes_a_users_error_on():
    with pytest.raises(ConfigError, match="log in"):
        Trackers({"two": Spy(fails="check", error=ConfigError("k", "log in"))}).check()


def test_finishing_twice_closes_once(run):
    spy = Spy()
    trackers = Trackers({"spy": spy})
    trackers.start(run)
    trackers.finish(None, 1)
    trackers.finish()
    assert [call for call in spy.calls if call[0] == "finish"] == [("finish", None, 1)]


def test_labels_tell_the_runs_of_a_sweep_apart(tmp_path):
    def label(job):
        return RunInfo(tmp_path, "demo", "sweep", job, {}, [], 1).label

    assert label(None) == "demo"
    assert label("loss=coba,seed=2") == "demo-loss=coba,seed=2"
    long = [label("x" * 200 + end) for end in "ab"]
    assert all(len(text) == 128 for text in long)
    assert long[0] != long[1]
    assert fit_label("short") == "short"
