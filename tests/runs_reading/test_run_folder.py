"""What a run's folder tells, whatever state it is in."""

import datetime
import json
import subprocess
import sys

import pytest
from run_folders import START, done, evaluation, held, settings, training, write_run

from mftrun.compare.comparison import Comparison
from mftrun.compare.write import write
from mftrun.runs import RunFolder, State, find
from mftrun.runs.records import Records
from mftrun.runs.status import statuses

SOME = [evaluation(0, a=4.0, b=5.0), training(2, a=3.5, b=4.5), training(10, a=3.0, b=4.0)]


def state_of(path):
    return RunFolder.of(path).state


def test_states_of_an_attempt_after_another(tmp_path):
    run = tmp_path / "run"
    assert state_of(run) is State.NOT_STARTED
    write_run(run, settings())
    assert state_of(run) is State.NOT_STARTED
    with held(run):
        assert state_of(run) is State.RUNNING
    write_run(run, records=SOME)
    assert state_of(run) is State.STOPPED
    (run / "failure.json").write_text(json.dumps({"message": "no space"}))
    assert state_of(run) is State.FAILED
    with held(run):
        assert state_of(run) is State.RUNNING
    write_run(run, summary=done())
    assert state_of(run) is State.FINISHED
    write_run(run, summary=done(pruned=20))
    assert state_of(run) is State.PRUNED
    assert RunFolder.of(run).is_finished


def test_a_checkpoint_alone_is_a_stopped_run(tmp_path):
    (tmp_path / "checkpoints" / "step-00000010").mkdir(parents=True)
    assert state_of(tmp_path) is State.STOPPED


def test_reading_changes_nothing(tmp_path):
    run = write_run(tmp_path / "run", settings(), SOME)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    found = RunFolder.of(run)
    assert (found.state, found.step, found.tasks) == (State.STOPPED, 10, ["a", "b"])
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", [b"\x00\xff\xfe", b"[1, 2", b"[]", b"{}: {", b"[" * 2000])
def test_a_broken_file_is_named_and_nothing_raises(tmp_path, name, content):
    run = write_run(tmp_path / "run", settings(), SOME)
    (run / name).write_bytes(content)
    found = RunFolder.of(run)
    seen = (found.state, found.step, found.total_steps, found.seconds, found.failure, found.tasks)
    assert seen
    assert found.faults == [f"{name} cannot be read"]


def test_values_of_any_kind_are_passed_over(tmp_path):
    run = write_run(
        tmp_path / "run", {"train": 3, "job": [1]}, SOME, {"steps": "x", "tasks": 1, "seconds": {}}
    )
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 12, "time": 7, "valid/loss/a": "low", "valid/loss/c": NaN, "epoch": []}\n{"step": 1'
        )
    found = RunFolder.of(run)
    assert found.tasks == ["a", "b"]
    assert found.records.of("valid/loss/a") == [(0, 4.0)]
    assert (found.step, found.seconds) == (12, 20.0)


@pytest.mark.parametrize("content", ["", "[]", '"full"', "{"])
def test_a_failure_without_words_is_one(tmp_path, content):
    (tmp_path / "failure.json").write_text(content)
    assert RunFolder.of(tmp_path).state is State.FAILED
    assert RunFolder.of(tmp_path).failure.message


def test_failure_tells_what_happened(tmp_path):
    node = {"time": "2026-01-31", "message": "rank 1 was killed", "traceback": "RuntimeError: killed"}
    (tmp_path / "failure.json").write_text(json.dumps(node))
    failure = RunFolder.of(tmp_path).failure
    assert (failure.message, failure.time, failure.detail) == (
        "rank 1 was killed",
        "2026-01-31",
        "RuntimeError: killed",
    )


@pytest.mark.parametrize(
    ("train", "epoch", "log", "total"),
    [
        ({"max_steps": 40, "epochs": None}, None, "", 40),
        ({"max_steps": None, "epochs": 3}, 0.5, "", 60),
        ({"max_steps": 40, "epochs": 3}, 0.5, "", 40),
        ({"max_steps": None, "epochs": 3}, None, "", None),
        ({"max_steps": None, "epochs": 3}, 0.5, "… step  8/61 train | loss 1\nstep 10/61 valid", 61),
    ],
)
def test_total_steps(tmp_path, train, epoch, log, total):
    newest = training(10, a=1.0) | ({} if epoch is None else {"epoch": epoch})
    run = write_run(tmp_path / "run", settings(train=train), [newest])
    (run / "mftrun.log").write_text(log)
    assert RunFolder.of(run).total_steps == total


def test_eta_goes_by_the_newest_pace(tmp_path):
    run = write_run(tmp_path / "run", settings(), SOME)
    now = START + datetime.timedelta(seconds=25)
    assert RunFolder.of(run).eta(now) is None
    with held(run):
        assert RunFolder.of(run).eta(now) == pytest.approx(2 * 30 - 5)


def test_the_end_of_a_long_file_reaches_back_to_a_validation(tmp_path):
    path = tmp_path / "metrics.jsonl"
    late = [training(step, a=1.0) for step in range(1, 4000)]
    path.write_text("".join(json.dumps({**row, "pad": "x" * 300}) + "\n" for row in [SOME[0], *late]))
    assert path.stat().st_size > 2**20
    assert Records.end_of(path).newest("valid/loss/b") == 5.0
    with path.open("a") as file:
        file.write(json.dumps(evaluation(4000, a=2.0)) + "\n")
    end = Records.end_of(path)
    assert 100 < len(end.rows) < 4000
    assert end.newest("valid/loss/a") == 2.0


def test_it_needs_no_torch():
    heavy = ("torch", "transformers", "peft", "matplotlib", "rich")
    program = (
        "import sys, mftrun.runs.status, mftrun.compare.write, mftrun.jobs.status, mftrun.jobs.compare;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


HUGE = "1" + "0" * 400
HOSTILE = {
    "a number without a float": {"metrics": f'{{"step": 1, "valid/loss/a": {HUGE}}}'},
    "a step without a float": {"metrics": f'{{"step": {HUGE}, "valid/loss/a": 1}}'},
    "sums beyond floats": {"metrics": '{"step": 1, "valid/loss/a": 1.7e308, "valid/loss/b": 1.7e308}'},
    "differences beyond floats": {
        "metrics": '{"step": 1, "valid/loss/a": 1.7e308, "valid/loss/b": -1.7e308}'
    },
    "half a character": {"metrics": '{"step": 1, "valid/loss/\\ud800": 1}'},
    "a huge summary": {"summary": f'{{"steps": {HUGE}, "seconds": {HUGE}, "tokens_per_second": {HUGE}}}'},
    "no such time": {"config": "a: !!timestamp nope"},
    "no such truth": {"config": "a: !!bool nope"},
    "a config that holds itself": {"config": "a: &a\n  b: *a"},
}
FILES = {"metrics": "metrics.jsonl", "summary": "summary.json", "config": "config.yaml"}


@pytest.mark.parametrize("files", HOSTILE.values(), ids=HOSTILE)
def test_no_file_of_one_run_costs_what_is_known_of_others(tmp_path, files):
    good = write_run(tmp_path / "0_good", settings(seed=1), [evaluation(10, a=2.0)], done())
    bad = write_run(tmp_path / "1_\udcff", settings(seed=2), [evaluation(10, a=3.0)], done())
    for kind, text in files.items():
        (bad / FILES[kind]).write_text(text + "\n")
    found = find(str(tmp_path))
    comparison = Comparison.of_found(found)
    write(comparison, tmp_path / "compare.html")
    assert comparison.results[0].loss("a") == 2.0
    assert json.loads((tmp_path / "compare.json").read_text())["runs"][0]["path"] == str(good)
    stand = statuses(found, START, lambda command: "")
    assert stand[0].valid == 2.0
