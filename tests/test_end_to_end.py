"""The command line as a user's shell sees it: signals, trackers, sweeps, bad input."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from commands import mftrun
from runs import SMALL, overrides_for, write_task

COMMAND = [sys.executable, "-m", "mftrun"]
# A run that lasts far longer than any test needs, yet ends, and says every step.
LONG = ["train.max_steps=5000", "train.log_every=1", "evaluation.every=null", "checkpoint.every_steps=null"]


def start(folder, *arguments):
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Whoever started the tests in the background may have made them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def read_until(process, pattern):
    """Lines up to the first that matches; fails if the output ends before."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if re.search(pattern, line):
            return "".join(seen)
    raise AssertionError("".join(seen))


def console(tasks_dir, *more):
    chosen = [one for one in overrides_for(tasks_dir, *more) if not one.startswith("tracker=")]
    return [*chosen, "tracker=local", "tracker.tensorboard=null"]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_signal_saves_and_the_same_command_goes_on(tasks_dir, tmp_path, signum, code, ranks):
    two = ["distributed=ddp", f"distributed.num_processes={ranks}"]
    arguments = console(tasks_dir, *LONG, *two, "output_dir=run", "resume=auto")
    process = start(tmp_path, *arguments)
    read_until(process, r"step +3/")
    # To the whole group, as a terminal's Ctrl-C and a scheduler's kill arrive.
    os.killpg(process.pid, signum)
    rest = process.stdout.read()
    assert process.wait() == code, rest
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert f"saved {saved}" in rest
    assert "rerun=" in rest
    again = start(tmp_path, *arguments)
    read_until(again, rf"resumed at step {int(saved.name[5:])} ")
    read_until(again, rf"step +{int(saved.name[5:]) + 1}/")
    os.killpg(again.pid, signal.SIGKILL)
    again.wait()


def test_a_signal_while_loading_ends_at_once(tasks_dir, tmp_path):
    process = start(tmp_path, *console(tasks_dir, *LONG, "output_dir=run"))
    read_until(process, "prepared the data")
    os.killpg(process.pid, signal.SIGTERM)
    process.stdout.read()
    assert process.wait() in (143, -signal.SIGTERM)
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def test_an_offline_wandb_run_and_tensorboard_hold_the_losses(tasks_dir, tmp_path):
    chosen = [one for one in overrides_for(tasks_dir, "train.max_steps=3") if not one.startswith("tracker=")]
    done = mftrun(tmp_path, *chosen, "output_dir=run", "train.log_every=1")
    assert done.returncode == 0, done.stdout
    folder = tmp_path / "run"
    assert any(path.stat().st_size for path in folder.glob("wandb/offline-run-*/*.wandb"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [record["train/loss/forward"] for record in records if "train/loss/forward" in record]
    assert [event.value for event in events.Scalars("train/loss/forward")] == pytest.approx(logged)


def test_a_sweep_goes_on_past_a_failing_job(tasks_dir, tmp_path):
    done = mftrun(tmp_path, "-m", *console(tasks_dir, "train.max_steps=2"), "data.max_length=3,96")
    assert done.returncode == 1
    assert "data.max_length" in done.stdout
    finished = list(tmp_path.glob("runs/sweeps/*/*/*/summary.json"))
    assert len(finished) == 1
    assert "96" in finished[0].parent.name


def test_rerun_repeats_a_run_number_for_number(tasks_dir, tmp_path):
    first = mftrun(
        tmp_path, *console(tasks_dir, "train.max_steps=3", "train.log_every=1"), "output_dir=first"
    )
    second = mftrun(tmp_path, "rerun=first", "output_dir=second")
    assert (first.returncode, second.returncode) == (0, 0), first.stdout + second.stdout
    losses = [
        [json.loads(line).get("train/loss") for line in (tmp_path / name / "metrics.jsonl").open()]
        for name in ("first", "second")
    ]
    assert losses[0] == losses[1]


GOOD = {"chat_rounds": [{"role": "human", "content": "q"}, {"role": "bot", "content": "a"}]}
BAD_LINES = {
    "not JSON": ('{"chat_rounds": [', r"train\.jsonl:2"),
    "no field": ('{"dialogue": []}', r"train\.jsonl:2.*dialogue"),
    "empty": ('{"chat_rounds": []}', r"train\.jsonl:2"),
    "order": (
        json.dumps({"chat_rounds": [{"role": "bot", "content": "a"}, {"role": "bot", "content": "a"}]}),
        r"train\.jsonl:2.*(alternate|first|user)",
    ),
    "role": (json.dumps({"chat_rounds": [{"role": "robot", "content": "a"}]}), r"train\.jsonl:2.*robot"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_stops_before_any_model_and_is_named(tmp_path, name):
    line, message = BAD_LINES[name]
    path = write_task(tmp_path, "task", 20) / "train.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    done = mftrun(tmp_path, *SMALL, "data.tasks.task.path=task")
    assert done.returncode == 1
    assert re.search(message, done.stdout), done.stdout
    assert "Traceback" not in done.stdout
    assert "parameters are trained" not in done.stdout


def test_a_second_start_in_the_same_folder_waits_for_nobody(tasks_dir, tmp_path):
    first = start(tmp_path, *console(tasks_dir, *LONG, "output_dir=run"))
    read_until(first, r"step +1/")
    second = mftrun(tmp_path, *console(tasks_dir, *LONG, "output_dir=run", "resume=auto"))
    assert second.returncode == 1
    assert "another process is running" in second.stdout
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()


BAD_COMMANDS = {
    "missing folder": (["data.tasks.x.path=nowhere"], r"nowhere"),
    "empty file": (["data.tasks.x.path=empty.jsonl"], r"empty\.jsonl.*empty"),
    "two of one name": (["data.paths=[task,other/task]"], r"two tasks are named task"),
    "weight of nobody": (
        ["data.paths=[task]", "loss.weighting.weights.tsk=2"],
        r"loss\.weighting\.weights\.tsk.*task",
    ),
    "too long": (["data.paths=[task]", "data.max_length=12"], r"train\.jsonl:\d+.*data\.max_length"),
    "too few to split": (["data.paths=[task]", "data.valid_min=25"], r"data\.valid_min"),
    "file in the way": (["data.paths=[task]", "output_dir=empty.jsonl"], r"output_dir.*empty\.jsonl"),
    "typo": (["optimizer.lrr=1"], r"optimizer\.lr\b"),
    "appended typo": (["+train.max_step=1"], r"train\.max_steps"),
    "wrong type": (["train.max_steps=many"], r"train\.max_steps.*many"),
    "unknown option": (["loss=mff"], r"mft"),
    "a pretrained model's key": (["model.path=task"], r"model\.path.*model=auto.* and others"),
    "no path": (["model=auto"], r"model\.path"),
    "not a model": (["model=llama", "model.path=task"], r"model\.path.*config\.json"),
    "value of a constructor": (["optimizer.lr=-1.0"], r"optimizer\.lr.*above 0"),
    "falling upwards": (["scheduler.min_lr=1.0"], r"scheduler\.min_lr.*optimizer\.lr"),
    "nothing to watch": (
        ["data.valid_fraction=0", "evaluation.early_stopping.patience=1"],
        r"early_stopping\.patience.*valid_fraction",
    ),
    "validated on training data": (
        ["data.tasks.t.path=task", "data.tasks.t.valid_path=task/train.jsonl"],
        r"data\.tasks\.t\.valid_path",
    ),
    "two ranks of one": (
        ["distributed=single", "distributed.num_processes=2"],
        r"distributed\.num_processes",
    ),
    "no such checkpoint": (["data.paths=[task]", "resume=nowhere"], r"resume.*nowhere"),
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
def test_a_mistake_is_one_clear_message(tmp_path, name):
    arguments, message = BAD_COMMANDS[name]
    for folder in (tmp_path, tmp_path / "other"):
        write_task(folder, "task", 20)
    (tmp_path / "empty.jsonl").touch()
    done = mftrun(tmp_path, "tracker=none", *arguments)
    assert done.returncode == 1
    assert re.search(message, done.stdout), done.stdout
    assert "Traceback" not in done.stdout
    assert "parameters are trained" not in done.stdout


def test_a_refused_command_leaves_no_run_behind(tmp_path):
    write_task(tmp_path, "task", 20)
    assert mftrun(tmp_path, "data.paths=[task]", "optimizer.lr=-1.0").returncode == 1
    assert not list(tmp_path.glob("runs/mftrun/*"))
