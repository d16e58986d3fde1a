"""Whole runs in which a task stops improving, is frozen, and the others go on."""

import json
import signal
from functools import cache

import pytest
from runs import overrides_for, train
from test_resume import assert_equal, metrics, strike

from mftrun.errors import ConfigError
from mftrun.tracking import jsonl

STEPS = [
    "train.max_steps=12",
    "train.log_every=1",
    "evaluation.every=2",
    "checkpoint.every_steps=3",
    "evaluation.early_stopping.per_task=2",
]
ROLLBACK = "evaluation.early_stopping.rollback=true"
ROLLED = [ROLLBACK, "checkpoint.keep_last=1"]
FROZEN_AT = 4  # evaluations at 0 (the best), 2 and 4


COBA = ["loss=coba", "loss.weighting.warmup=2"]


@pytest.fixture(scope="module")
def base(tasks_dir, tmp_path_factory):
    """One task is validated on answers that training makes ever less likely."""
    other = tmp_path_factory.mktemp("answers")
    rounds = [
        {"role": "human", "content": "forward: alpha"},
        {"role": "bot", "content": "7 31 904 55 8 2 77"},
    ]
    (other / "valid.jsonl").write_text("\n".join([json.dumps({"chat_rounds": rounds})] * 4))
    paths = sorted(path for path in tasks_dir.iterdir() if path.name != "forward")
    named = [f"data.paths=[{','.join(map(str, paths))}]", f"data.tasks.forward.path={tasks_dir / 'forward'}"]
    plain = [one for one in overrides_for(tasks_dir) if not one.startswith("data.paths")]
    return [*plain, *named, f"data.tasks.forward.valid_path={other}", *STEPS]


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """Gives an uninterrupted run with these overrides."""

    @cache
    def trained(*more):
        run = tmp_path_factory.mktemp("whole") / "run"
        train(run, *base, *more)
        return run

    return trained


def assert_same_end(one, other):
    """The same checkpoints are left, and the last says the same."""
    names = [sorted(path.name for path in (run / "checkpoints").glob("step-*")) for run in (one, other)]
    assert names[0] == names[1]
    last = [
        json.loads((run / "checkpoints" / names[0][-1] / "progress.json").read_text()) for run in (one, other)
    ]
    assert {**last[0], "seconds": 0} == {**last[1], "seconds": 0}


def logged(run):
    return [record for record in jsonl.read(run / "metrics.jsonl") if "train/loss" in record]


@pytest.mark.parametrize("loss", [["loss=mft"], ["loss=token_mean"], COBA], ids=lambda loss: loss[0])
def test_a_frozen_task_is_trained_no_more_and_the_others_are(whole, loss):
    run = whole(*loss)
    records = logged(run)
    assert [record["step"] for record in records] == list(range(1, 13))
    before, after = records[:FROZEN_AT], records[FROZEN_AT:]
    assert any("train/loss/forward" in record for record in before)
    assert not any("train/loss/forward" in record for record in after)
    assert all(record["weight/forward"] == 0 for record in after)
    for other in ("backward", "sideways"):
        assert any(f"train/loss/{other}" in record for record in after)
        assert all(record[f"weight/{other}"] > 0 for record in after)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["tasks"]["forward"]["frozen_step"] == FROZEN_AT
    assert summary["tasks"]["backward"]["frozen_step"] is None


def test_the_best_checkpoint_of_every_task_is_kept(whole):
    run = whole(*ROLLED) / "checkpoints"
    progress = json.loads((run / "step-00000012" / "progress.json").read_text())
    assert progress["tasks"]["forward"]["kept_step"] == 0
    kept = {best["kept_step"] for best in [progress["overall"], *progress["tasks"].values()]} | {12}
    assert {int(path.name[5:]) for path in run.glob("step-*")} == kept


@pytest.mark.parametrize("more", [[], [ROLLBACK]], ids=["going on", "rolling back"])
def test_stopping_and_resuming_changes_nothing(base, tmp_path, whole, more):
    """Four stops in a row: three cut an evaluation short, of which the second would have frozen a task."""
    expected = without_share(whole(*COBA, *more))
    resume = []
    for stop in (2, 4, 5, 6):
        train(tmp_path, *base, *COBA, *more, *strike(stop, signal.SIGTERM), *resume)
        assert (tmp_path / "checkpoints" / f"step-{stop:08d}").is_dir()
        assert not (tmp_path / "model").exists()
        done = [record for record in expected if record["step"] < stop]
        assert_equal(without_share(tmp_path)[: len(done)], done)
        resume = ["resume=auto"]
    train(tmp_path, *base, *COBA, *more, *resume)
    assert_equal(without_share(tmp_path), expected)
    assert_same_end(tmp_path, whole(*COBA, *more))


def without_share(run):
    return [{key: value for key, value in record.items() if key != "probe/share"} for record in metrics(run)]


def test_rolling_back_starts_again_from_the_best_model_of_the_task(whole):
    run = whole(*ROLLED)
    log = (run / "mftrun.log").read_text()
    assert "task forward is frozen" in log
    assert "went back to the model and the optimizer of step 0" in log
    losses = {r["step"]: r["valid/loss/backward"] for r in metrics(run) if "valid/loss" in r}
    assert losses[6] > losses[4], "two steps from the start instead of six"
    assert losses[12] < losses[6]


def test_two_ranks_freeze_alike(base, tmp_path, whole):
    two = ["distributed=ddp", "distributed.num_processes=2", "train.micro_batch_size=1"]
    train(tmp_path, *base, *ROLLED, *two)
    for left, right in zip(metrics(whole(*ROLLED)), metrics(tmp_path), strict=True):
        keys = [key for key in left if "loss/" in key]
        assert {key: right.get(key) for key in keys} == pytest.approx(
            {key: left[key] for key in keys}, rel=1e-3
        )


def test_the_run_ends_when_all_tasks_are_frozen(tasks_dir, tmp_path):
    never = ["evaluation.early_stopping.min_delta=100", "train.log_every=3", *STEPS[:1], *STEPS[2:]]
    train(tmp_path, *overrides_for(tasks_dir, *never))
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == FROZEN_AT
    assert "all tasks that have a weight are frozen" in (tmp_path / "mftrun.log").read_text()
    last = logged(tmp_path)[-1]
    assert last["step"] == FROZEN_AT
    assert last["weight/forward"] == 1, "the weight it was trained with"


@pytest.mark.parametrize(
    "only",
    [
        ["sampler=weights", "sampler.weights={backward:0,sideways:0}"],
        ["loss.weighting.weights={backward:0,sideways:0}"],
    ],
)
def test_the_run_ends_when_nothing_that_is_trained_is_left(base, tmp_path, only):
    train(tmp_path / "run", *base, *only)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == FROZEN_AT
    assert (tmp_path / "run" / "model").is_dir()


def test_a_rollback_that_no_step_follows_is_said(base, tmp_path):
    train(tmp_path / "run", *base, ROLLBACK, f"train.max_steps={FROZEN_AT}")
    assert "not going back to step 0: the run ends here" in (tmp_path / "run" / "mftrun.log").read_text()


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ([ROLLBACK], "evaluation.early_stopping.rollback"),
        (["evaluation.early_stopping.per_task=2", "evaluation.every=null"], "evaluation.every"),
        (
            ["evaluation.early_stopping.per_task=2", "evaluation.every=2", "data.valid_fraction=0.0"],
            "evaluation.early_stopping.per_task",
        ),
        (
            [
                "evaluation.early_stopping.per_task=2",
                "evaluation.every=2",
                ROLLBACK,
                "checkpoint.keep_best=false",
            ],
            "evaluation.early_stopping.rollback",
        ),
    ],
)
def test_what_cannot_work_is_refused(tasks_dir, tmp_path, overrides, key):
    with pytest.raises(ConfigError) as caught:
        train(tmp_path, *overrides_for(tasks_dir, *overrides))
    assert caught.value.key == key
