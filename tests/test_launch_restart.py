"""A run that crashes and is started again ends like one that never did."""

import json
import logging

import pytest
from runs import overrides_for, train

from mftrun.launch import RankFailed

STEPS = 6
VOLATILE = {"time", "tokens_per_second", "memory_gib"}
DATA = {
    "whole": ["train.epochs=3"],
    # Six steps of four rows take several shards, of which those left behind are removed.
    "streamed": ["train.epochs=null", "data.shard_samples=4", "data.valid_fraction=0.1"],
}


def run(tasks_dir, folder, data, *more):
    often = ["train.log_every=1", "evaluation.every=3", "checkpoint.every_steps=2"]
    common = [f"train.max_steps={STEPS}", "rows=padding", *often]
    return train(folder, *overrides_for(tasks_dir, *common, *DATA[data], *more))


def struck(folder, step, restarts):
    bomb = f"+tracker.bomb={{_target_:launch_bombs.Once,step:{step},mark:{folder}.mark}}"
    return ["allowed_targets=[launch_bombs]", bomb, f"distributed.max_restarts={restarts}"]


def metrics(folder):
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in record.items() if key not in VOLATILE} for record in records]


@pytest.fixture(scope="module")
def expected(tasks_dir, tmp_path_factory):
    """Metrics of runs without a crash, by their data."""
    folders = {data: tmp_path_factory.mktemp("expected") / data for data in DATA}
    return {data: (run(tasks_dir, folder, data), metrics(folder)) for data, folder in folders.items()}


@pytest.mark.parametrize(
    ("data", "step", "begins"),
    [("whole", 1, "the beginning"), ("whole", 5, "step-00000004"), ("streamed", 5, "step-00000004")],
)
def test_restart_changes_nothing(tasks_dir, tmp_path, caplog, expected, data, step, begins):
    folder = tmp_path / "run"
    caplog.set_level(logging.WARNING)
    result = run(tasks_dir, folder, data, *struck(folder, step, restarts=1))
    assert (result, metrics(folder)) == expected[data]
    assert f"going on from {begins}" in caplog.text
    assert "starting all ranks again (restart 1 of 1)" in caplog.text


def test_without_restarts_a_crash_ends_the_run(tasks_dir, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(RankFailed, match="SIGKILL"):
        run(tasks_dir, folder, "whole", *struck(folder, 2, restarts=0))
