"""Whole runs with weightings that watch losses: resumed, split over ranks, refused."""

import math
from functools import cache

import pytest
from runs import overrides_for, train, write_task
from test_resume import COMMON as RESUMED
from test_resume import assert_same_run, metrics

from mftrun.errors import ConfigError
from mftrun.tracking import jsonl

TASKS = ["backward", "forward", "sideways"]
CUT = 4
COMMON = [*RESUMED, f"checkpoint.every_steps={CUT}"]
WARM = "loss.weighting.warmup=2"
SMALL_PROBE = "probe.tokens_per_task=60"
WEIGHTINGS = {
    "coba": ["loss=coba", WARM, "loss.weighting.window=4", SMALL_PROBE],
    "coba, now and then": ["loss=coba", WARM, "loss.weighting.window=4", "probe.interval=3"],
    "coba on train": ["loss=coba", WARM, "loss.weighting.window=4", "loss.weighting.watch=train"],
    "self_paced": ["loss=self_paced", WARM, "loss.weighting.window=4"],
    "famo": ["loss=famo", "loss.weighting.repeats=4", SMALL_PROBE],
    "famo on train": ["loss=famo", "loss.weighting.watch=train"],
    "lbtw": ["loss=lbtw"],
    "dwa on train": ["loss=dwa", "loss.weighting.watch=train"],
    "uncertainty on train": ["loss=uncertainty", "loss.weighting.watch=train"],
    "dro": ["loss=dro", "loss.weighting.references.forward=1.5"],
    "gradnorm": ["loss=gradnorm", "probe.interval=2"],
    "gradnorm on train": ["loss=gradnorm", "loss.weighting.watch=train"],
    "focal by task": ["loss=focal", "loss.token_loss.level=task", "peft=lora", "peft.dropout=0.1"],
}


@pytest.fixture(scope="module")
def whole(tasks_dir, tmp_path_factory):
    """Gives an uninterrupted run with a weighting."""

    @cache
    def trained(name):
        run = tmp_path_factory.mktemp("whole") / "run"
        train(run, *overrides_for(tasks_dir, *COMMON, *WEIGHTINGS[name]))
        return run

    return trained


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_resuming_changes_nothing(tasks_dir, tmp_path, whole, name):
    """From a checkpoint on the way, in a log interval, an epoch and an interval of the probe."""
    checkpoint = whole(name) / "checkpoints" / f"step-{CUT:08d}"
    train(tmp_path, *overrides_for(tasks_dir, *COMMON, *WEIGHTINGS[name]), f"resume={checkpoint}")
    assert_same_run(tmp_path, whole(name))
    ours, theirs = (
        [{key: value for key, value in record.items() if key != "probe/share"} for record in metrics(run)]
        for run in (tmp_path, whole(name))
    )
    assert ours == [record for record in theirs if record["step"] > CUT]
    if "focal" not in name:
        assert len({record["weight/forward"] for record in theirs if "weight/forward" in record}) > 1


@pytest.mark.parametrize("name", ["coba", "famo on train", "gradnorm on train"])
def test_ranks_do_not_matter(tasks_dir, tmp_path, whole, name):
    two = ["distributed=ddp", "distributed.num_processes=2", "train.micro_batch_size=1"]
    train(tmp_path, *overrides_for(tasks_dir, *COMMON, *WEIGHTINGS[name]), *two)
    one, other = metrics(whole(name)), metrics(tmp_path)
    for left, right in zip(one, other, strict=True):
        keys = [key for key in left if key.startswith(("weight/", "probe/loss", "train/loss", "valid/loss"))]
        assert {key: right[key] for key in keys} == pytest.approx({key: left[key] for key in keys}, rel=1e-3)


def test_what_weights_were_computed_from_is_logged(whole):
    records = [record for record in jsonl.read(whole("coba") / "metrics.jsonl") if "train/loss" in record]
    kinds = ("weight", "probe/loss", "balance/slope", "balance/rcs", "balance/acs")
    for kind in kinds:
        assert all(f"{kind}/{task}" in records[-1] for task in TASKS)
    assert 0 < records[-1]["balance/df"] <= 1
    assert all(0 < record["probe/share"] < 1 for record in records)
    assert math.isclose(sum(records[-1][f"weight/{task}"] for task in TASKS), 1, rel_tol=1e-9)


def test_a_probe_that_no_weighting_watches_is_logged_and_leaves_training_as_it_was(tasks_dir, tmp_path):
    base = overrides_for(tasks_dir, *COMMON, "peft=lora", "peft.dropout=0.1")
    train(tmp_path / "without", *base)
    train(tmp_path / "with", *base, "probe.interval=2")
    found = [
        {key: value for key, value in record.items() if not key.startswith("probe/")}
        for record in metrics(tmp_path / "with")
    ]
    assert found == metrics(tmp_path / "without")
    last = [record for record in metrics(tmp_path / "with") if "train/loss" in record][-1]
    assert all(f"probe/loss/{task}" in last for task in TASKS)
    assert not any(key.startswith("balance/") for key in last)


def test_a_task_without_validation_samples_is_named(tasks_dir, tmp_path):
    alone = write_task(tmp_path / "data", "lonely", 30)
    tasks = [f"data.tasks.lonely.path={alone}", "data.valid_fraction=0.0"]
    checked = write_task(tmp_path / "data", "checked", 30)
    held_out = write_task(tmp_path / "valid", "checked", 5, seed=1)
    tasks += [f"data.tasks.checked.path={checked}", f"data.tasks.checked.valid_path={held_out}"]
    base = [override for override in overrides_for(tasks_dir) if not override.startswith("data.paths")]
    with pytest.raises(ConfigError, match="lonely") as caught:
        train(tmp_path / "run", *base, *tasks, "loss=coba")
    assert caught.value.key == "data.tasks.lonely"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_probe_that_nobody_takes_is_said(tasks_dir, tmp_path, caplog):
    train(tmp_path, *overrides_for(tasks_dir, SMALL_PROBE, "train.max_steps=1"))
    assert "probe.tokens_per_task has no effect" in caplog.text


def test_a_task_that_is_never_drawn_is_named(tasks_dir, tmp_path, caplog):
    never = ["sampler=weights", "sampler.weights.forward=0", "train.max_steps=1"]
    train(tmp_path, *overrides_for(tasks_dir, *never))
    assert "the first epoch draws no sample of forward" in caplog.text
