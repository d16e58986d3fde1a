"""Whether a job comes back, and how results are waited for; scripts stand in for Slurm's commands."""

import os
from types import SimpleNamespace

import pytest

from mftrun.slurm import ending, waiting
from mftrun.slurm.comeback import Comeback
from mftrun.slurm.controller import Controller, seconds
from mftrun.slurm.errors import JobFailed
from mftrun.slurm.submission import returning

RUNNING = "JobId=7 JobName=a JobState=RUNNING Reason=None Requeue=1 RunTime=00:10:00 TimeLimit=01:00:00"
DURATIONS = {"00:01:30": 90, "1-00:00:01": 86401, "UNLIMITED": None, "": None, "05:00": 300}


class Count:
    """How often a job may come back, in memory."""

    def __init__(self, left):
        self.left = left

    def keep(self, left):
        self.left = left


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Puts a script in the place of one of Slurm's commands; its calls are in FOLDER/calls."""

    def put(name, *lines):
        script = tmp_path / name
        script.write_text("\n".join(["#!/bin/bash", f"cd {tmp_path}", 'echo "$@" >>calls', *lines]))
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return tmp_path

    return put


def asked(count, *, delay=120, lost=False):
    Comeback(count, Controller("7", pauses=(0, 0)), delay).ask_for(lost=lost)


@pytest.mark.parametrize("text", DURATIONS)
def test_durations(text):
    assert seconds(text) == DURATIONS[text]


@pytest.mark.parametrize(
    ("line", "delay", "lost", "left"),
    [
        (RUNNING, 120, False, 3),
        (RUNNING, 120, True, 2),
        (RUNNING, 50 * 60, False, 2),
        (RUNNING.replace("TimeLimit=01:00:00", "TimeLimit=UNLIMITED"), 120, False, 3),
        ("JobState=TIMEOUT Reason=TimeLimit RunTime=00:01:00 TimeLimit=01:00:00", 1, False, 2),
    ],
    ids=["preempted", "a node is lost", "its time is over", "no limit", "over by now"],
)
def test_only_what_is_the_jobs_own_counts(command, line, delay, lost, left):
    folder = command("scontrol", f'[[ $1 == requeue ]] || echo "{line}"')
    count = Count(3)
    asked(count, delay=delay, lost=lost)
    assert count.left == left
    assert (folder / "calls").read_text().splitlines() == ["--oneliner show job 7", "requeue 7"]


def test_a_job_that_somebody_has_cancelled_does_not_come_back(command, caplog):
    folder = command("scontrol", "echo JobState=CANCELLED Reason=None")
    asked(Count(3))
    assert "requeue" not in (folder / "calls").read_text()
    assert "for Slurm it is cancelled" in caplog.text


def test_a_slurm_that_is_busy_is_asked_again(command, caplog):
    folder = command("scontrol", "if mkdir busy-$1; then echo no answer >&2; exit 1; fi", f"echo {RUNNING}")
    asked(Count(3))
    assert (folder / "calls").read_text().count("requeue 7") == 2
    assert "queued again as job 7 (3 remaining timeouts)" in caplog.text


@pytest.mark.parametrize(
    ("line", "left", "message"),
    [
        ("", 3, "Slurm does not answer .*the same command goes on"),
        (RUNNING.replace("Requeue=1", "Requeue=0"), 3, "no-requeue in hydra.launcher"),
        (RUNNING.replace("Reason=None", "Reason=TimeLimit"), 0, "max_num_timeout"),
    ],
    ids=["no answer", "not allowed", "too often"],
)
def test_a_job_that_cannot_come_back_says_why(command, line, left, message):
    folder = command("scontrol", f"echo {line}")
    with pytest.raises(JobFailed, match=message):
        asked(Count(left))
    assert "requeue" not in (folder / "calls").read_text()


def test_jobs_may_be_queued_again_unless_they_are_asked_not_to():
    assert returning({"hold": True}) == {"hold": True, "requeue": True}
    for options in ({"no-requeue": True}, {"no_requeue": True}, {"requeue": False}):
        assert returning(options) == {"no-requeue": True}


def test_a_result_of_a_job_that_is_still_queued_is_not_its_last(command, monkeypatch, tmp_path):
    command("squeue", "mkdir asked && echo 7 RUNNING", "rm -f result")
    (tmp_path / "result").touch()
    monkeypatch.setattr(waiting, "_LOOK", 0.0)
    monkeypatch.setattr(waiting, "_ASK", 0.0)
    monkeypatch.setattr(waiting, "_ASK_AT_END", 0.0)
    paths = SimpleNamespace(result_pickle=tmp_path / "result", stdout="log")
    (told,) = waiting.outcomes([SimpleNamespace(job_id="7", paths=paths)], [[]])
    with pytest.raises(JobFailed, match="before it had a result"):
        _ = told.return_value


def test_whoever_stops_waiting_is_told_how_to_end_the_jobs(monkeypatch, caplog):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        waiting.outcomes([SimpleNamespace(job_id="7_0")], [[]])
    assert "scancel 7 ends them" in caplog.text


@pytest.mark.parametrize(
    ("queue", "summaries", "compared"),
    [("", "01", 1), ("7_0 RUNNING", "0", 1), ("7_1 RUNNING", "0", 0), ("7_1 COMPLETING", "01", 1)],
    ids=["alone", "in the queue itself", "another runs", "another has said what it came to"],
)
def test_the_last_job_compares(command, monkeypatch, tmp_path, queue, summaries, compared):
    command("squeue", f"echo {queue}" if queue else "")
    for number in "01":
        (tmp_path / "sweep" / number).mkdir(parents=True)
        (tmp_path / "sweep" / number / "slurm_job").write_text(f"7_{number}\n")
        (tmp_path / "sweep" / number / "config.yaml").touch()
    for number in summaries:
        (tmp_path / "sweep" / number / "summary.json").write_text("{}")
    seen = []
    monkeypatch.setattr("mftrun.compare.write.compare_sweep", seen.append)
    ending.compare_if_last(tmp_path / "sweep", "7_0")
    assert len(seen) == compared
