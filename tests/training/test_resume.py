"""Law: k steps, a stop, and the rest are the same as all steps in one go, number for number."""

import json
import signal

import pytest
import torch
from runs import assert_same_tensors, overrides_for, train

from mftrun.launch import RankFailed
from mftrun.tracking import jsonl

STEPS = 14
# Twenty-odd rows an epoch of four: the stops below lie in the middle of an epoch and of a log interval.
COMMON = [
    f"train.max_steps={STEPS}",
    "train.log_every=3",
    "evaluation.every=4",
    "checkpoint.every_steps=5",
    "checkpoint.keep_last=9",
    "rows=padding",
]
ADAPTERS = {"full": ["peft=none"], "lora": ["peft=lora", "peft.r=4", "peft.dropout=0.1"]}
VOLATILE = {"time", "tokens_per_second", "memory_gib"}
BESIDE = ["checkpoint.asynchronous=true", "checkpoint.export=true"]
BOMB = ["allowed_targets=[bombs]"]


@pytest.fixture(scope="module")
def whole(tasks_dir, tmp_path_factory):
    """Uninterrupted runs, by adapter."""
    made = {}
    for name, adapter in ADAPTERS.items():
        made[name] = tmp_path_factory.mktemp("whole") / name
        train(made[name], *overrides_for(tasks_dir, *COMMON, *adapter))
    return made


def strike(step, signum):
    bomb = f"+tracker.bomb={{_target_:bombs.Strike,step:{step},signum:{int(signum)}}}"
    return [*BOMB, bomb]


def metrics(run):
    return [
        {key: value for key, value in record.items() if key not in VOLATILE}
        for record in jsonl.read(run / "metrics.jsonl")
    ]


def assert_same_run(found, expected):
    name = f"checkpoints/step-{STEPS:08d}"
    assert_same_tensors(found / name, expected / name)
    assert_equal(torch.load(found / name / "state.pt"), torch.load(expected / name / "state.pt"))
    progress = [json.loads((run / name / "progress.json").read_text()) for run in (found, expected)]
    assert {**progress[0], "seconds": 0} == {**progress[1], "seconds": 0}


def assert_equal(one, other):
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)  # equal, that is
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            if key not in ("lap_seconds", "seconds"):
                assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    else:
        assert one == other


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("beside", [[], BESIDE], ids=["plain", "beside"])
def test_sigterm_saves_at_the_next_step_and_resuming_changes_nothing(
    tasks_dir, tmp_path, whole, adapter, beside
):
    base = overrides_for(tasks_dir, *COMMON, *ADAPTERS[adapter], *beside)
    train(tmp_path, *base, *strike(4, signal.SIGTERM))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    assert not (tmp_path / "model").exists()
    train(tmp_path, *base, "resume=auto")
    assert_same_run(tmp_path, whole[adapter])
    assert metrics(tmp_path) == metrics(whole[adapter])
    if beside:
        assert_exported(tmp_path / f"checkpoints/step-{STEPS:08d}/model", tmp_path / "model")


def assert_exported(folder, final):
    """The model of a checkpoint is that which the run has ended with, but for what is told at the end."""
    told = {"README.md", "base_fingerprint.json"}
    files = {path.name for path in final.iterdir()} - told
    assert {path.name for path in folder.iterdir()} - told == files
    assert [
        name for name in sorted(files) if (folder / name).read_bytes() != (final / name).read_bytes()
    ] == []


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_kill_loses_only_the_steps_since_the_last_checkpoint(tasks_dir, tmp_path, whole, adapter):
    base = overrides_for(tasks_dir, *COMMON, *ADAPTERS[adapter])
    with pytest.raises(RankFailed, match="SIGKILL"):
        train(tmp_path, *base, *strike(9, signal.SIGKILL))
    train(tmp_path, *base, "resume=auto")
    assert_same_run(tmp_path, whole[adapter])
    # Step 9 was logged before the kill; going on from a checkpoint at 8, its record is made again.
    assert metrics(tmp_path) == metrics(whole[adapter])


@pytest.mark.parametrize("asynchronous", ["false", "true"])
def test_kill_in_the_middle_of_a_save_leaves_the_previous_one(tasks_dir, tmp_path, whole, asynchronous):
    beside = f"checkpoint.asynchronous={asynchronous}"
    base = overrides_for(tasks_dir, *COMMON, *ADAPTERS["full"], beside)
    bomb = "+tracker.bomb={_target_:bombs.KillDuringSave,step:6}"
    with pytest.raises(RankFailed, match="SIGKILL"):
        train(tmp_path, *base, *BOMB, bomb)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == [".partial-step-00000008", "step-00000004", "step-00000005"], (
        "killed while saving the best at 8"
    )
    train(tmp_path, *base, "resume=auto")
    assert_same_run(tmp_path, whole["full"])
    assert metrics(tmp_path) == metrics(whole["full"])
    assert not (tmp_path / "checkpoints" / ".partial-step-00000008").exists()


def test_resuming_a_finished_run_changes_nothing(tasks_dir, tmp_path, whole):
    base = overrides_for(tasks_dir, *COMMON, *ADAPTERS["full"])
    train(tmp_path, *base)
    before = metrics(tmp_path)
    train(tmp_path, *base, "resume=auto")
    assert metrics(tmp_path) == before
    assert_same_run(tmp_path, whole["full"])


def test_two_ranks_resume_like_one_run(tasks_dir, tmp_path):
    two = ["distributed=ddp", "distributed.num_processes=2", "train.micro_batch_size=1"]
    base = overrides_for(tasks_dir, *COMMON, *ADAPTERS["lora"], *two)
    train(tmp_path / "whole", *base)
    train(tmp_path / "cut", *base, *strike(4, signal.SIGTERM))
    assert (tmp_path / "cut" / "checkpoints" / "step-00000004").is_dir()
    train(tmp_path / "cut", *base, "resume=auto")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
