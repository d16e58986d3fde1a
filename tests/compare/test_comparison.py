"""Results side by side: numbers, seeds, the table on a console, and as a file."""

import csv
import io
import json

import pytest
from rich.console import Console
from run_folders import done, evaluation, settings, submit, training, write_run

from mftrun.compare.columns import columns
from mftrun.compare.comparison import Comparison
from mftrun.compare.table import as_csv, notes, tables
from mftrun.compare.write import compare_sweep, write
from mftrun.errors import ConfigError, MftrunError
from mftrun.runs import State, find, find_runs


def add(sweep, name, seed, loss, *evaluations, **summary):
    records = [evaluation(10 * (number + 1), **losses) for number, losses in enumerate(evaluations)]
    node = done(**summary) if summary is not None else None
    return write_run(sweep / name, settings(seed=seed), records, node, {"loss": loss})


@pytest.fixture
def sweep(tmp_path):
    add(tmp_path, "0_mft_1", 1, "mft", {"a": 4.0, "b": 5.0}, {"a": 3.0, "b": 5.2}, {"a": 3.5, "b": 4.5})
    add(tmp_path, "1_mft_2", 2, "mft", {"a": 3.0, "b": 4.0}, {"a": 2.0, "b": 4.0}, seconds=60.0)
    add(tmp_path, "2_coba_1", 1, "coba", {"a": 3.0, "b": 3.2})
    (tmp_path / "multirun.yaml").touch()
    return tmp_path


def compared(folder):
    return Comparison.of(find_runs(str(folder)))


def printed(comparison, width):
    console = Console(width=width, record=True, file=io.StringIO())
    for table in tables(comparison, width):
        console.print(table)
    return console.export_text()


def test_each_task_has_its_lowest_and_the_rest_is_of_one_evaluation(sweep):
    result = compared(sweep).results[0]
    assert {task: (one.loss, one.step) for task, one in result.tasks.items()} == {
        "a": (3.0, 20),
        "b": (4.5, 30),
    }
    best = result.best
    assert (best.mean, best.worst, best.worst_task, best.spread, best.step) == (4.0, 4.5, "b", 1.0, 30)


def test_seeds_of_one_setting_are_grouped(sweep):
    mft, coba = compared(sweep).groups
    assert (mft.label, mft.seeds, coba.label, coba.seeds) == ("loss=mft", ("1", "2"), "loss=coba", ("1",))
    assert (mft.mean.mean, mft.mean.n) == (3.5, 2)
    assert mft.mean.deviation == pytest.approx(0.5 * 2**0.5)
    assert mft.tasks["a"].mean == 2.5
    assert coba.mean.deviation is None


def test_without_two_seeds_of_anything_there_are_no_groups(sweep, tmp_path):
    (sweep / "1_mft_2" / "summary.json").write_text(json.dumps(done(pruned=20)))
    assert compared(sweep).groups == []


def test_a_repeated_seed_is_no_further_seed(sweep):
    add(sweep, "3_again", 2, "mft", {"a": 9.0, "b": 9.0})
    mft = compared(sweep).groups[0]
    assert len(mft.seeds) == 2


def test_a_run_whose_config_cannot_be_read_is_no_seed_of_others(sweep):
    lost = add(sweep, "3_lost", 3, "mft", {"a": 900.0, "b": 900.0})
    (lost / "config.yaml").write_text("{broken")
    assert [(group.label, group.seeds) for group in compared(sweep).groups] == [
        ("loss=mft", ("1", "2")),
        ("loss=coba", ("1",)),
    ]


def test_submitted_jobs_that_have_not_begun_are_named(sweep):
    submit(sweep, "7_1", number=1)
    submit(sweep, "7_5", number=5)
    comparison = Comparison.of_found(find(str(sweep)))
    assert comparison.to_dict()["not_begun"] == ["7_5"]
    told = "not begun, and so not here: Slurm jobs 7_5; see job=status"
    assert told in notes(comparison, 120)
    write(comparison, sweep / "compare.html")
    assert told in (sweep / "compare.html").read_text()


def test_a_sweep_that_waits_says_who_knows_more(tmp_path):
    submit(tmp_path, "7_0", number=0)
    with pytest.raises(ConfigError, match=f"job=status runs={tmp_path}"):
        Comparison.of_found(find(str(tmp_path)))


def test_the_best_of_each_column_is_marked(sweep):
    comparison = compared(sweep)
    best = {one.name: [run.label for run in one.best_of(comparison.results)] for one in columns(comparison)}
    assert best["a"] == ["1_mft_2"]
    assert best["b"] == ["2_coba_1"]
    assert best["mean"] == ["1_mft_2"]
    assert best["worst task"] == best["spread"] == ["2_coba_1"]
    assert best["time"] == ["1_mft_2"]
    assert best["loss"] == best["run"] == best["state"] == []
    row = next(line for line in printed(comparison, 160).splitlines() if "1_mft_2" in line)
    assert "2.0000* @20" in row
    assert "1m00s*" in row


def test_other_tasks_do_not_win_the_mean(sweep):
    add(sweep, "3_other", 1, "mft", {"c": 0.5})
    comparison = compared(sweep)
    assert comparison.tasks == ["a", "b", "c"]
    mean = next(one for one in columns(comparison) if one.name == "mean")
    assert [run.label for run in mean.best_of(comparison.results)] == ["1_mft_2"]
    assert any("do not compare: 3_other" in note for note in notes(comparison, 200))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_it_fits_a_console_and_says_what_it_left_out(sweep, width):
    comparison = compared(sweep)
    runs = printed(comparison, width).split("over seeds")[0]
    assert all(len(line) <= width for line in runs.splitlines())
    for label in ("0_mft_1", "1_mft_2", "2_coba_1"):
        assert label in runs
    gone = [one.name for one in columns(comparison) if f" {one.name} " not in f" {runs} "]
    told = " ".join(notes(comparison, width))
    assert all(name in told for name in gone)


def test_broken_runs_are_named_not_raised(sweep):
    (sweep / "3_empty").mkdir()
    failed = write_run(sweep / "4_failed", settings(seed=4), [training(3, a=2.0)])
    (failed / "failure.json").write_text(json.dumps({"message": "<b>killed</b>"}))
    (write_run(sweep / "5_torn") / "config.yaml").write_text("a: [")
    comparison = compared(sweep)
    assert [one.state for one in comparison.results[3:]] == [
        State.NOT_STARTED,
        State.FAILED,
        State.NOT_STARTED,
    ]
    told = notes(comparison, 120)
    assert "4_failed: <b>killed</b>" in told
    assert "5_torn: config.yaml cannot be read" in told
    assert "failed 3/40" in printed(comparison, 160)


def test_csv_has_exact_numbers_a_line_for_each_run(sweep):
    rows = list(csv.DictReader(io.StringIO(as_csv(compared(sweep)))))
    assert [row["run"] for row in rows] == ["0_mft_1", "1_mft_2", "2_coba_1"]
    first = rows[0]
    assert (first["loss"], first["seed"], first["a"], first["a best step"]) == ("mft", "1", "3.0", "20")
    assert (first["mean"], first["time"], first["state"]) == ("4.0", "80.0", "finished")


def test_written_files_are_whole_and_beside_each_other(sweep, tmp_path):
    write(compared(sweep), tmp_path / "new" / "page.html")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "page.csv",
        "page.html",
        "page.json",
    ]
    content = json.loads((tmp_path / "new" / "page.json").read_text())
    assert content["runs"][1]["best"]["mean"] == 3.0
    assert content["seeds"][0]["mean"]["n"] == 2
    (tmp_path / "file").touch()
    with pytest.raises(MftrunError, match="cannot be written"):
        write(compared(sweep), tmp_path / "file" / "page.html")


def test_a_sweep_ends_whatever_its_comparison_does(sweep, caplog, capsys):
    compare_sweep(sweep)
    assert (sweep / "compare.html").exists()
    assert "1_mft_2" in capsys.readouterr().out
    compare_sweep(sweep / "nowhere")
    assert "are not compared: runs:" in caplog.text
