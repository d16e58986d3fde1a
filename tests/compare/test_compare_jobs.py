"""job=compare and job=status on the command line."""

import pytest
from commands import mftrun
from run_folders import done, evaluation, settings, write_run

from mftrun.errors import ConfigError
from mftrun.jobs.compare import CompareJob


def test_both_jobs_look_on_and_leave_nothing_else(tmp_path):
    for seed in (1, 2):
        run = tmp_path / "sweep" / str(seed)
        write_run(run, settings(seed=seed), [evaluation(10, a=2.0 + seed)], done())
    status = mftrun(tmp_path, "job=status", "runs=sweep")
    assert status.returncode == 0, status.stdout
    assert "2 finished" in status.stdout
    compared = mftrun(tmp_path, "job=compare", "runs=sweep/*", "output=new/page.html")
    assert compared.returncode == 0, compared.stdout
    assert "3.0000*" in compared.stdout
    assert (tmp_path / "new" / "page.html").exists()
    assert list((tmp_path / "runs").rglob("*.*")) == []


@pytest.mark.parametrize("name", ["mine.html", "mine.json", "mine.csv"])
def test_files_of_others_are_left_alone(tmp_path, name):
    run = write_run(tmp_path / "run", settings(), [evaluation(10, a=2.0)], done())
    job = CompareJob(str(run), str(tmp_path / "mine.html"))
    (tmp_path / name).write_text('{"results": [1]}')
    own = tmp_path / "own"
    with pytest.raises(ConfigError, match=f"{name} is there already") as caught:
        job.run({}, own)
    assert caught.value.key == "output"
    assert [path.name for path in tmp_path.glob("mine.*")] == [name]
    (tmp_path / name).unlink()
    for _ in range(2):  # its own it replaces
        own.mkdir()
        job.run({}, own)
    assert len(list(tmp_path.glob("mine.*"))) == 3


def test_an_output_that_is_no_page_is_refused():
    with pytest.raises(ConfigError, match=r"compare\.html"):
        CompareJob("runs", "table.csv")
