import io
import json

import pytest
from rich.console import Console

from mftrun.tracking.summary import TaskCounts, plain_text, series, summarize, table

RECORDS = [
    {"step": 0, "valid/loss/a": 9.0},
    {"step": 10, "train/loss/a": 8.0},
    {"step": 20, "train/loss/a": 6.0, "train/loss/b": 7.0},
    {"step": 20, "valid/loss/a": 5.0, "valid/loss/b": 7.5},
    {"step": 30, "train/loss/a": 4.0, "train/loss/b": None},
    {"step": 40, "valid/loss/a": 5.5},
]
RATES = {
    "steps": 40,
    "seconds": 95.0,
    "tokens_per_second": 12345.0,
    "trainable_parameters": 10,
    "total_parameters": 99,
}

HEADER = ["task", "samples", "samples", "tokens", "first", "last", "last", "best", "step"]


def made(counts=None, records=RECORDS, **changes):
    counts = counts or {"a": TaskCounts(100, 5, 2000), "b": TaskCounts(50, 3, 1000)}
    return summarize(records, counts, **(RATES | changes))


def rich_lines(summary, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table(summary, width))
    return console.file.getvalue().splitlines()


def test_first_last_and_best_come_from_the_records():
    task = made().tasks["a"]
    assert (task.train_first, task.train_last) == (8.0, 4.0)
    assert (task.valid_first, task.valid_last) == (9.0, 5.5)
    assert (task.valid_best, task.valid_best_step) == (5.0, 20)
    assert (task.samples, task.valid_samples, task.target_tokens) == (100, 5, 2000)


def test_what_was_never_measured_is_none():
    task = made({"c": TaskCounts(1, 0, 7)}).tasks["c"]
    assert task.train_first is task.valid_best is task.valid_best_step is None


def test_a_value_that_was_not_finite_is_no_point():
    assert series(RECORDS, "train/loss/b") == ([20], [7.0])
    assert made().tasks["b"].train_last == 7.0


def test_json_holds_everything(tmp_path):
    path = made(closing={"model": "RUN/model"}).write(tmp_path)
    assert path == tmp_path / "summary.json"
    read = json.loads(path.read_text())
    assert read["tasks"]["a"]["valid_best"] == 5.0
    assert read["tasks"]["a"]["valid_first"] == 9.0
    assert read["steps"] == 40
    assert read["closing"] == {"model": "RUN/model"}
    assert list(read["tasks"]) == ["a", "b"]


def test_the_plain_table():
    lines = plain_text(made(closing={"model": "RUN/model", "next": "go on"})).splitlines()
    assert lines[1].split() == HEADER
    assert lines[3].split() == ["a", "100", "5", "2,000", "8.0000", "4.0000", "5.5000", "5.0000", "20"]
    assert lines[4].split() == ["b", "50", "3", "1,000", "7.0000", "7.0000", "7.5000", "7.5000", "20"]
    assert lines[5].split() == [
        "mean",
        "/",
        "total",
        "150",
        "8",
        "3,000",
        "7.5000",
        "5.5000",
        "6.5000",
        "6.2500",
    ]
    assert lines[7] == "40 steps in 1m35s, 12.3k tokens/s, 10 of 99 parameters trained"
    assert lines[8:] == ["model: RUN/model", "next:  go on"]


def test_frozen_tasks_have_their_step_in_the_table_and_in_json():
    summary = made(frozen={"b": 30})
    lines = plain_text(summary).splitlines()
    assert lines[0].split()[-1] == "frozen"
    assert lines[1].split() == [*HEADER, "at"]
    assert lines[3].split()[-2:] == ["5.0000", "20"]  # a was trained to the end
    assert lines[4].split()[-2:] == ["20", "30"]
    assert lines[5].split()[-1] == "6.2500"  # a mean of such steps would say nothing
    assert summary.to_dict()["tasks"]["a"]["frozen_step"] is None
    assert summary.to_dict()["tasks"]["b"]["frozen_step"] == 30


def test_no_frozen_task_no_column():
    assert "frozen" not in plain_text(made())
    assert "frozen" in plain_text(made(frozen={"a": 0}))


@pytest.mark.parametrize("width", [60, 100])
def test_the_step_of_freezing_fits_a_narrow_terminal(width):
    lines = rich_lines(made(frozen={"a": 123_456}), width)
    assert max(map(len, lines)) <= width
    assert any("123456" in line for line in lines)


def test_one_task_needs_no_mean_and_an_evaluation_before_the_first_step_can_be_the_best():
    text = plain_text(made({"a": TaskCounts(1, 1, 1)}, [{"step": 0, "valid/loss/a": 1.0}]))
    assert "mean" not in text
    assert text.splitlines()[3].split()[-2:] == ["1.0000", "0"]


def big_summary():
    counts = {
        f"evol-instruct-code-generation-{number:02d}-of-many": TaskCounts(9_876_543, 20_000, 98_765_432_100)
        for number in range(30)
    }
    records = [{"step": 123_456, **{f"valid/loss/{name}": 12.34567 for name in counts}}]
    return made(counts, records, steps=123_456)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_table_fits_whole_and_keeps_names_apart(width):
    summary = big_summary()
    plain = plain_text(summary, width).splitlines()[:34]
    for lines in (plain, rich_lines(summary, width)):
        assert max(map(len, lines)) <= width
        assert "…" not in "".join(lines)
        names = [line.split()[0] for line in lines if "evol" in line]
        assert len(set(names)) == 30
        assert all("12.3457" in line for line in lines if "evol" in line)


def test_a_hundred_columns_hold_every_column():
    for lines in (plain_text(big_summary()).splitlines(), rich_lines(big_summary(), 100)):
        header = next(line for line in lines if "task" in line)
        assert header.split() == HEADER


def test_names_are_shown_as_they_are():
    summary = made({"[bold]x[/bold]": TaskCounts(1, 1, 1), "b": TaskCounts(1, 1, 1)})
    assert any("[bold]x[/bold]" in line for line in rich_lines(summary, 100))


def test_what_is_active_per_token_is_told_of_experts_alone():
    assert "active" not in made().totals()
    assert made(active_parameters=30).totals().endswith("10 of 99 parameters trained, 30 active per token")
