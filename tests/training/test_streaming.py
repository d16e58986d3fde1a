"""Training on shards: what is trained, how runs go on, and what happens when data runs out."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from runs import SMALL, assert_same_tensors, train, write_task

from mftrun.compose import compose
from mftrun.data.shards.folder import ShardFolder
from mftrun.errors import ConfigError, DataError, MftrunError
from mftrun.jobs.shard_process import Place
from mftrun.jobs.shard_server import make_ahead
from mftrun.jobs.sources import task_sources
from mftrun.launch import RankFailed
from mftrun.schema import check
from mftrun.tracking import jsonl

STEPS = 12
# A shard holds 8 and 4 samples, three batches of four rows: the stops below lie inside of shards.
COMMON = [
    *SMALL,
    f"train.max_steps={STEPS}",
    "train.log_every=1",
    "evaluation.every=4",
    "checkpoint.every_steps=5",
    "checkpoint.keep_last=9",
    "rows=padding",
    "data.shard_samples=8",
    "data.tasks.small.shard_samples=4",
    "data.num_workers=1",
    "data.valid_max=3",
    "allowed_targets=[bombs]",
]
VOLATILE = {"time", "tokens_per_second", "memory_gib"}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A task of many samples, and a small one that begins again twice."""
    folder = tmp_path_factory.mktemp("tasks")
    return {name: write_task(folder, name, size) for name, size in {"large": 60, "small": 7}.items()}


@pytest.fixture(scope="module")
def base(tasks):
    return [*COMMON, *(f"data.tasks.{name}.path={path}" for name, path in tasks.items())]


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(run, *base)
    return run


def strike(step, signum):
    return f"+tracker.bomb={{_target_:bombs.Strike,step:{step},signum:{int(signum)}}}"


def metrics(run):
    return [
        {key: value for key, value in record.items() if key not in VOLATILE}
        for record in jsonl.read(run / "metrics.jsonl")
    ]


def assert_same_run(found, expected):
    name = f"checkpoints/step-{STEPS:08d}"
    assert_same_tensors(found / name, expected / name)
    assert metrics(found) == metrics(expected)


def test_every_shard_is_an_epoch_of_its_samples(whole):
    records = [record for record in metrics(whole) if "epoch" in record]
    assert [record["epoch"] for record in records][2::3] == [1.0, 2.0, 3.0, 4.0], "three steps a shard"
    progress = json.loads((whole / f"checkpoints/step-{STEPS:08d}" / "progress.json").read_text())
    assert progress["samples"] == {"large": 4 * 8, "small": 4 * 4}
    report = json.loads((whole / "data" / "stream" / "report.json").read_text())
    assert report["tasks"]["large"]["samples"] >= 32
    assert report["tasks"]["large"]["passes"] == 0
    assert report["tasks"]["small"]["passes"] >= 2, "six samples to train on, sixteen trained"


def test_shards_are_gone_when_the_run_is_finished_but_not_the_records(whole):
    folder = ShardFolder(whole / "data")
    assert folder.numbers() == []
    assert folder.start(4).positions["large"].passes == 0
    assert (whole / "model").is_dir()


def test_sigterm_and_resume_change_nothing(base, tmp_path, whole):
    train(tmp_path, *base, strike(4, signal.SIGTERM))
    assert ShardFolder(tmp_path / "data").holds(1), "step 4 is the first of the second shard"
    train(tmp_path, *base, "resume=auto")
    assert_same_run(tmp_path, whole)


def test_kill_and_resume_without_any_shard_change_nothing(base, tmp_path, whole):
    with pytest.raises(RankFailed, match="SIGKILL"):
        train(tmp_path, *base, strike(11, signal.SIGKILL))
    ShardFolder(tmp_path / "data").clear()
    train(tmp_path, *base, "resume=auto")
    assert_same_run(tmp_path, whole)


def test_resume_in_another_folder_reads_on_where_the_checkpoint_was_taken(base, tmp_path, whole):
    checkpoint = whole / "checkpoints" / "step-00000005"
    train(tmp_path / "copy", *base, f"resume={checkpoint}")
    name = f"checkpoints/step-{STEPS:08d}"
    assert_same_tensors(tmp_path / "copy" / name, whole / name)


def test_two_ranks_go_on_where_one_was_stopped(base, tmp_path, whole):
    train(tmp_path, *base, strike(4, signal.SIGTERM))
    two = ["distributed=ddp", "distributed.num_processes=2", "train.micro_batch_size=1"]
    train(tmp_path, *base, *two, "resume=auto")
    found, expected = metrics(tmp_path), metrics(whole)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        shared = {key: value for key, value in theirs.items() if key != "padding_share"}
        assert {key: ours[key] for key in shared} == pytest.approx(shared, rel=1e-3)


def test_a_bad_line_far_into_the_data_stops_the_run_which_can_go_on_without_it(base, tasks, tmp_path):
    path = write_task(tmp_path / "tasks", "large", 60) / "train.jsonl"
    lines = path.read_text().splitlines()
    lines[30] = "not JSON"
    path.write_text("\n".join(lines) + "\n")
    mine, run = [*base, f"data.tasks.large.path={path}"], tmp_path / "run"
    with pytest.raises(DataError, match="not JSON") as caught:
        train(run, *mine)
    assert caught.value.line == 31
    assert "allow_changed_config=true" in str(caught.value)
    steps = [record["step"] for record in metrics(run) if "epoch" in record]
    assert steps == list(range(1, 10)), "the three shards before it are trained"
    assert (run / "checkpoints" / "step-00000009").is_dir(), "and saved"
    with pytest.raises(ConfigError, match=r"data\.on_bad"):
        train(run, *mine, "data.on_bad=skip", "resume=auto")
    train(run, *mine, "data.on_bad=skip", "resume=auto", "checkpoint.allow_changed_config=true")
    report = json.loads((run / "data" / "stream" / "report.json").read_text())
    assert report["tasks"]["large"]["bad"] == 1
    assert (run / "model").is_dir()


def test_changed_sources_are_refused_unless_allowed(base, tmp_path):
    path = write_task(tmp_path / "tasks", "large", 60) / "train.jsonl"
    mine, run = [*base, f"data.tasks.large.path={path}"], tmp_path / "run"
    train(run, *mine, strike(4, signal.SIGTERM))
    with path.open("a") as file:
        file.write(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"(?s)has changed.*train\.jsonl"):
        train(run, *mine, "resume=auto")
    train(run, *mine, "resume=auto", "checkpoint.allow_changed_config=true")
    assert (run / "model").is_dir()


def test_a_maker_that_dies_stops_the_run(base, tmp_path):
    source = "{_target_:deadly_source.Deadly,samples:30,deadly:20}"
    mine = [one for one in base if not one.startswith(("data.tasks.large.path", "allowed"))]
    allowed = ["allowed_targets=[deadly_source]", "data.valid_fraction=0.0"]
    with pytest.raises(MftrunError, match="SIGKILL"):
        train(tmp_path / "run", *mine, f"data.tasks.large.source={source}", *allowed)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epochs=1", "train.epochs=null train.max_steps=N"),
        ("data.tasks.large.max_samples=3", "shard_samples says how many"),
        ("data.shard_samples=null", "acts with data.shard_samples only"),
        ("job=tokenize", "set it to null here"),
        ("data.cache_dir=x", "shards lie in the run's folder"),
    ],
)
def test_what_makes_no_sense_is_refused(base, tmp_path, override, words):
    with pytest.raises(ConfigError, match=words):
        train(tmp_path, *base, override)


def test_preview_shows_the_first_shard(base, tmp_path, capsys):
    train(tmp_path, *base, "job=preview", "job.samples=1")
    printed = capsys.readouterr().out
    assert "large" in printed
    assert "rows per epoch" in printed


class Made:
    """Shards of three batches each, in memory."""

    def __init__(self, *there):
        self.there, self.kept, self.now = set(there), [], min(there)

    def holds(self, number):
        return number in self.there

    def make(self, number):
        self.there.add(number)
        self.kept.append(sorted(self.there))

    def open(self, number):
        return number

    def numbers(self):
        return sorted(self.there)

    def remove(self, number):
        self.there.remove(number)

    def wanted(self):
        return self.now

    def goes_on(self, seconds):
        self.now += 1


class Ten:
    """Ten steps, three a shard."""

    may_shrink = False

    def total_steps(self):
        return 10

    def plan(self, table, number):
        return SimpleNamespace(num_batches=3)


def test_few_shards_are_there_at_a_time_and_none_is_made_that_nobody_will_train_on(monkeypatch):
    made = Made(0)
    monkeypatch.setattr("mftrun.jobs.shard_server.time.sleep", made.goes_on)
    make_ahead(Ten(), made, made, Place())
    assert made.kept == [[0, 1], [0, 1, 2], [1, 2, 3]]
    assert made.now == 2, "the last one is made while the last but one is trained on"


def test_where_tasks_may_be_frozen_more_shards_come_once_they_are_wanted(monkeypatch):
    made, data = Made(0), Ten()
    data.may_shrink = True
    wanted_at = {}

    def goes_on(seconds):
        if made.now == 5:
            raise KeyboardInterrupt
        made.goes_on(seconds)
        wanted_at.update(dict.fromkeys(made.there - wanted_at.keys(), made.now))

    monkeypatch.setattr("mftrun.jobs.shard_server.time.sleep", goes_on)
    with pytest.raises(KeyboardInterrupt):
        make_ahead(data, made, made, Place())
    assert made.kept[:3] == [[0, 1], [0, 1, 2], [1, 2, 3]]
    assert [kept[-1] for kept in made.kept[3:]] == [4, 5], "beyond the ten steps none is made ahead"
    assert wanted_at[4] == 5, "it was not there when 4 was not yet wanted"


def test_after_a_resume_shards_are_counted_from_its_place(monkeypatch):
    made = Made(5, 6)
    monkeypatch.setattr("mftrun.jobs.shard_server.time.sleep", made.goes_on)
    make_ahead(Ten(), made, made, Place(step=4, epoch=5, batch=2))
    assert made.kept == [[5, 6, 7]], "steps 3 to 5 in shard 5, 6 to 8 in shard 6, 9 and 10 in shard 7"


def test_datasets_are_not_downloaded_as_a_whole():
    task = ["data.tasks.a.dataset=owner/name", "data.tasks.a.valid_split=test"]
    for overrides, expected in ((task, False), ([*task, "data.shard_samples=5"], True)):
        sources = task_sources(check(compose(overrides)))["a"]
        assert sources.train.streaming is expected
        assert sources.valid.streaming is expected


def test_processes_are_gone(whole):
    mine = [path for path in Path("/proc").glob("[0-9]*") if _is_maker_of(path, os.getpid())]
    assert mine == []


def _is_maker_of(process, parent):
    try:
        status = (process / "stat").read_text().rsplit(")", 1)[1].split()
        command = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return int(status[1]) == parent and b"shard_server" in command
