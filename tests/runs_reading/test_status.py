"""How jobs stand, with Slurm and without."""

import datetime
import json
import subprocess

import pytest
from rich.console import Console
from run_folders import START, done, evaluation, held, settings, training, write_run

from mftrun.runs import RunFolder, State, find_runs
from mftrun.runs.slurm import note_slurm_job, slurm_id, slurm_jobs, submitted_ids
from mftrun.runs.status import lines, statuses, table

NOW = START + datetime.timedelta(seconds=20)
SOME = [evaluation(0, a=4.0, b=5.0), training(2, a=3.5), training(10, a=3.0, b=4.0)]


class Slurm:
    """Stands for Slurm's commands: answers by the first word, and keeps what it was asked."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    def __call__(self, command):
        self.asked.append(command)
        answer = self.answers.get(command[0], FileNotFoundError(command[0]))
        if isinstance(answer, Exception):
            raise answer
        return answer


def shown(found, width=120):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table(found))
    return console.export_text() + "\n".join(lines(found))


def test_a_sweep_in_all_states(tmp_path):
    write_run(tmp_path / "0_done", settings(), [*SOME, evaluation(40, a=2.0, b=3.0)], done())
    running = write_run(tmp_path / "1_runs", settings(), SOME)
    failed = write_run(tmp_path / "2_failed", settings(), SOME)
    (failed / "failure.json").write_text(json.dumps({"message": "[bold]disk[/bold] is full"}))
    (tmp_path / "3_empty").mkdir()
    (tmp_path / "multirun.yaml").touch()
    with held(running):
        found = statuses(find_runs(str(tmp_path)), NOW, Slurm())
    assert [one.state for one in found] == [State.FINISHED, State.RUNNING, State.FAILED, State.NOT_STARTED]
    assert (found[0].step, found[0].valid, found[0].eta) == (40, 2.5, None)
    assert (found[1].step, found[1].total_steps, found[1].train, found[1].eta) == (10, 40, 3.5, 60.0)
    text = shown(found)
    assert "1 not started, 1 running, 1 failed, 1 finished" in text
    assert "10/40" in text
    assert "2_failed: [bold]disk[/bold] is full" in text
    assert "1_runs: a 4.0000  b 5.0000" in text
    assert "slurm" not in text
    assert all(len(line) <= 60 for line in shown(found, 60).splitlines() if "/40" in line)


def test_slurm_is_asked_once_and_knows_better_than_the_lock(tmp_path):
    for number in range(4):
        write_run(tmp_path / f"{number}_job", settings(), SOME, slurm=f"7_{number}")
    (tmp_path / "3_job" / "summary.json").write_text(json.dumps(done()))
    for name in ("7_0", "7_4", "7_5", "logs"):
        (tmp_path / ".submitit" / name).mkdir(parents=True)
    (tmp_path / "multirun.yaml").touch()
    slurm = Slurm(
        squeue="7_0|RUNNING|None\n7_1|PENDING|Resources\n7_4|PENDING|Priority\nnonsense\n",
        sacct="7_2|CANCELLED by 1000\n7_2.batch|CANCELLED\n7_3|COMPLETED\n",
    )
    found = statuses(find_runs(str(tmp_path)), NOW, slurm)
    assert [(one.label, one.state, str(one.slurm)) for one in found] == [
        ("0_job", State.RUNNING, "7_0 RUNNING"),
        ("1_job", State.WAITING, "7_1 PENDING (Resources)"),
        ("2_job", State.STOPPED, "7_2 CANCELLED"),
        ("3_job", State.FINISHED, "7_3 COMPLETED"),
        ("Slurm job 7_4", State.WAITING, "7_4 PENDING (Priority)"),
    ]
    assert [command[0] for command in slurm.asked] == ["squeue", "sacct"]
    assert "--jobs=7_2,7_3,7_5" in slurm.asked[1]
    assert "7_1 PENDING (Resources)" in shown(found)


@pytest.mark.parametrize(
    "trouble", [FileNotFoundError("squeue"), subprocess.TimeoutExpired("squeue", 15), ""]
)
def test_slurm_that_does_not_answer_costs_nothing_else(tmp_path, trouble):
    write_run(tmp_path / "job", settings(), SOME, slurm="12")
    (one,) = statuses(find_runs(str(tmp_path)), NOW, Slurm(squeue=trouble))
    assert (one.state, str(one.slurm)) == (State.STOPPED, "12")


def test_many_jobs_are_asked_for_in_portions():
    slurm = Slurm(squeue="", sacct="")
    found = slurm_jobs([str(number) for number in range(1, 451)], slurm)
    assert len(found) == 450
    assert [command[0] for command in slurm.asked] == ["squeue"] * 3 + ["sacct"] * 3


def test_which_slurm_job_works_in_a_folder(tmp_path):
    local = write_run(tmp_path / "local", settings(), choices={})
    assert slurm_id(RunFolder.of(local)) is None
    note_slurm_job(local, {})
    assert slurm_id(RunFolder.of(local)) is None
    note_slurm_job(local, {"SLURM_JOB_ID": "31"})
    assert slurm_id(RunFolder.of(local)) == "31"
    note_slurm_job(local, {"SLURM_JOB_ID": "33", "SLURM_ARRAY_JOB_ID": "31", "SLURM_ARRAY_TASK_ID": "2"})
    assert slurm_id(RunFolder.of(local)) == "31_2"
    (local / "slurm_job").write_bytes(b"\xff; rm -rf")
    assert slurm_id(RunFolder.of(local)) is None


def test_submitted_jobs_count_as_numbers(tmp_path):
    for name in ("9_10", "9_9", "10_0", "9", "x", "9_0_log"):
        (tmp_path / ".submitit" / name).mkdir(parents=True)
    assert submitted_ids(tmp_path) == ["9", "9_9", "9_10", "10_0"]
    assert submitted_ids(tmp_path / "nowhere") == []
