"""Which runs a user means by a folder or a glob."""

import pytest
from run_folders import settings, write_run

from mftrun.errors import ConfigError
from mftrun.runs import find_runs


def names(*patterns):
    return [run.name for run in find_runs(list(patterns))]


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "runs" / "sweeps" / "demo" / "2026"
    for job in ("0_a", "2_c", "10_b"):
        write_run(folder / job, settings())
    (folder / "11_empty").mkdir()
    (folder / ".submitit").mkdir()
    (folder / "multirun.yaml").write_text("")
    return folder


def test_a_sweep_has_all_its_jobs_in_their_order(sweep):
    assert names(str(sweep)) == ["0_a", "2_c", "10_b", "11_empty"]


def test_runs_at_any_depth_without_what_lies_inside_a_run(sweep, tmp_path):
    single = write_run(tmp_path / "runs" / "mftrun" / "now", settings())
    write_run(single / "wandb" / "run", settings())
    assert names(str(tmp_path)) == ["now", "0_a", "2_c", "10_b", "11_empty"]


def test_one_run_a_glob_and_several_without_doubles(sweep):
    assert names(str(sweep / "2_c")) == ["2_c"]
    assert names(str(sweep / "*_[bc]")) == ["2_c", "10_b"]
    assert names(str(sweep / "0_a"), str(sweep / "*")) == ["0_a", "2_c", "10_b"]


def test_a_folder_whose_name_looks_like_a_pattern(tmp_path):
    run = write_run(tmp_path / "runs[1]", settings())
    assert names(str(run)) == ["runs[1]"]


def test_folders_of_other_jobs_are_left_out(sweep):
    write_run(sweep / "2_c", settings(job={"_target_": "mftrun.jobs.merge.MergeJob"}))
    assert names(str(sweep)) == ["0_a", "10_b", "11_empty"]


@pytest.mark.parametrize("pattern", ["nowhere", "nowhere/*", "."])
def test_nothing_there_names_the_key_and_the_folder(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=pattern.replace("*", r"\*").replace(".", r"\.")) as caught:
        find_runs(pattern)
    assert caught.value.key == "runs"
