"""How jobs stand, with Slurm and without."""

import datetime
import io
import json
import subprocess

import pytest
from rich.console import Console
from run_folders import START, done, evaluation, held, settings, submit, training, write_run

from mftrun.runs import RunFolder, State, find
from mftrun.runs.console import show
from mftrun.runs.slurm import note_slurm_job, run_command, slurm_id, slurm_jobs, submitted_ids
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
        found = statuses(find(str(tmp_path)), NOW, Slurm())
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
        (tmp_path / ".submitit" / name).mkdir(parents=True)  # without what tells their numbers
    (tmp_path / "multirun.yaml").touch()
    slurm = Slurm(
        squeue="7_0|RUNNING|None\n7_1|PENDING|Resources\n7_4|PENDING|Priority\nnonsense\n",
        sacct="7_2|CANCELLED by 1000\n7_2.batch|CANCELLED\n7_3|COMPLETED\n",
    )
    found = statuses(find(str(tmp_path)), NOW, slurm)
    assert [(one.label, one.state, str(one.slurm)) for one in found] == [
        ("0_job", State.RUNNING, "7_0 RUNNING"),
        ("1_job", State.WAITING, "7_1 PENDING (Resources)"),
        ("2_job", State.STOPPED, "7_2 CANCELLED"),
        ("3_job", State.FINISHED, "7_3 COMPLETED"),
        ("Slurm job 7_4", State.WAITING, "7_4 PENDING (Priority)"),
        ("Slurm job 7_5", State.FAILED, "7_5"),
    ]
    assert [command[0] for command in slurm.asked] == ["squeue", "sacct"]
    assert "--jobs=7_2,7_3,7_5" in slurm.asked[1]
    assert "7_1 PENDING (Resources)" in shown(found)


ENDED = "Slurm job 8_1 ended before its run began"


def test_a_sweep_that_has_not_begun_has_a_line_for_each_job(tmp_path):
    log = submit(tmp_path, "8_1", number=1, log="module: command not found") / "8_1_0_log.out"
    for job_id in ("7_0", "8_0", "8_2", "8_3"):  # the first of them twice
        submit(tmp_path, job_id, number=int(job_id[-1]))
    slurm = Slurm(squeue="8_0|PENDING|JobHeldUser\n8_1|FAILED|NonZeroExitCode\n8_2|CANCELLED|None\n")
    found = statuses(find(str(tmp_path)), NOW, slurm)
    assert [(one.label, one.state, one.notes) for one in found] == [
        ("Slurm job 8_0", State.WAITING, ()),
        ("Slurm job 8_1", State.FAILED, (f"{ENDED}; its log: {log}: module: command not found",)),
        ("Slurm job 8_2", State.STOPPED, ("Slurm job 8_2 was ended before its run began",)),
        ("Slurm job 8_3", State.FAILED, ("Slurm job 8_3 ended before its run began",)),
    ]
    assert "0/?" in shown(found)
    unasked = statuses(find(str(tmp_path)), NOW, Slurm())
    assert {one.state for one in unasked} == {State.NOT_STARTED}
    assert "Slurm does not say how job 8_3 stands" in shown(unasked)


def test_a_job_that_was_submitted_again_is_the_newest(tmp_path):
    for number, summary in enumerate([done(), None, None, None]):
        write_run(tmp_path / f"{number}_a", settings(), SOME, summary, slurm=f"8_{number}")
        submit(tmp_path, f"8_{number}", number)
    for number in (0, 1, 2):
        submit(tmp_path, f"9_{number}", number)
    (tmp_path / "multirun.yaml").touch()
    slurm = Slurm(squeue="9_1|PENDING|Priority\n", sacct="8_0|COMPLETED\n8_3|TIMEOUT\n")
    found = statuses(find(str(tmp_path)), NOW, slurm)
    assert [(one.label, one.state, str(one.slurm)) for one in found] == [
        ("0_a", State.FINISHED, "8_0 COMPLETED"),
        ("1_a", State.WAITING, "9_1 PENDING (Priority)"),
        ("2_a", State.STOPPED, "9_2"),
        ("3_a", State.STOPPED, "8_3 TIMEOUT"),
    ]
    assert found[2].notes == ("Slurm job 9_2 ended before its run began",)
    (one,) = statuses(find(str(tmp_path / "1_a")), NOW, slurm)
    assert one.state is State.WAITING


def test_other_jobs_of_a_sweep_have_a_state_and_no_steps(tmp_path):
    job = {"_target_": "mftrun.jobs.generate.GenerateJob"}
    write_run(tmp_path / "0_a", settings(job=job), summary={"metric": None, "pruned": None})
    write_run(tmp_path / "1_b", settings(), summary={"metric": 2.0, "pruned": None})
    (tmp_path / "multirun.yaml").touch()
    found = statuses(find(str(tmp_path)), NOW, Slurm())
    assert [one.state for one in found] == [State.FINISHED] * 2
    first, second = (line.split() for line in shown(found).splitlines() if "_" in line)
    assert (first[2], second[2]) == ("-", "0/0")


def test_a_terminal_without_a_character_gets_the_rest(tmp_path):
    (tmp_path / "0_\udcff").mkdir()  # as a name that is no UTF-8 is read
    (tmp_path / "multirun.yaml").touch()
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    found = statuses(find(str(tmp_path)), NOW, Slurm())
    show(Console(file=written, width=80), [table(found)], lines(found))
    assert b"|0_? |not started |" in written.buffer.getvalue()


def test_a_command_that_fails_has_not_answered():
    assert run_command(["sh", "-c", "echo 'error: Invalid job id specified' >&2; exit 1"]) == ""
    with pytest.raises(subprocess.SubprocessError):
        run_command(["sh", "-c", "echo 'error: cannot contact the controller' >&2; exit 1"])


@pytest.mark.parametrize(
    "trouble", [FileNotFoundError("squeue"), subprocess.TimeoutExpired("squeue", 15), ""]
)
def test_slurm_that_does_not_answer_costs_nothing_else(tmp_path, trouble):
    write_run(tmp_path / "job", settings(), SOME, slurm="12")
    (one,) = statuses(find(str(tmp_path)), NOW, Slurm(squeue=trouble))
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
    for name in ("9_10", "9_9", "10_0", "9", "8", "x", "9_0_log"):
        (tmp_path / ".submitit" / name).mkdir(parents=True)
    assert submitted_ids(tmp_path) == ["8", "9_9", "9_10", "10_0"]  # 9 is the array
    assert submitted_ids(tmp_path / "nowhere") == []
