import pytest

from mftrun.tracking.progress import Progress, plain_lines


def lines(progress, step, record, now=1.0, max_tasks=12):
    progress.update(step, record, now)
    return plain_lines(progress, record, now, max_tasks)


def test_the_pace_counts_from_where_this_process_started():
    progress = Progress(["a"], 100, first_step=20, started=1000.0)
    assert progress.remaining(1005.0) is None
    progress.update(30, {}, 1010.0)
    assert progress.remaining(1010.0) == pytest.approx(70.0)
    assert progress.remaining(1015.0) == pytest.approx(65.0)
    progress.update(30, {"valid/loss": 1.0}, 1020.0)  # an evaluation is no step
    assert progress.remaining(1020.0) == pytest.approx(60.0)
    progress.update(100, {}, 1080.0)
    assert progress.remaining(1090.0) == 0.0


def test_newest_and_best_losses_are_kept():
    progress = Progress(["a", "b"], 10, 0, 0.0)
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0)):
        progress.update(step, {"valid/loss/a": loss}, step)
    assert progress.loss_of("valid", "a") == 2.0
    assert progress.best == {"a": 1.0}
    assert progress.loss_of("valid", "b") is None
    assert progress.mean_of("valid") == 2.0
    assert progress.mean_of("train") is None


def test_few_tasks_keep_their_order_and_of_many_the_worst_are_shown():
    tasks = [f"t{number}" for number in range(20)]
    progress = Progress(tasks, 10, 0, 0.0)
    progress.update(1, {f"train/loss/t{number}": float(number % 7) for number in range(19)}, 1.0)
    progress.update(1, {"valid/loss/t3": 9.0}, 1.0)
    assert progress.shown(20) == tasks
    assert progress.shown(3) == ["t3", "t6", "t13"]


def test_a_training_line():
    progress = Progress(["add", "sub"], 100, 0, 0.0)
    record = {
        "train/loss": 2.5,
        "train/loss/add": 2.0,
        "train/loss/sub": 3.0,
        "lr": 2e-4,
        "tokens_per_second": 12345,
    }
    expected = (
        "step  10/100 train | loss  2.5000 | add  2.0000  sub  3.0000 | lr 2.00e-04 | 12.3k tok/s | eta 1m30s"
    )
    assert lines(progress, 10, record, now=10.0) == [expected]


def test_a_validation_line_and_both_in_one_record():
    progress = Progress(["add"], 100, 0, 0.0)
    assert lines(progress, 5, {"valid/loss": 1.0, "valid/loss/add": 1.0}) == [
        "step   5/100 valid | loss  1.0000 | add  1.0000"
    ]
    both = lines(progress, 6, {"train/loss": 1.0, "valid/loss": 2.0})
    assert [line.split(" | ")[0] for line in both] == ["step   6/100 train", "step   6/100 valid"]
    assert lines(progress, 7, {"lr": 0.1}) == []


def test_an_absent_task_keeps_its_column_and_shows_no_old_value():
    progress = Progress(["add", "sub"], 100, 0, 0.0)
    full = lines(progress, 1, {"train/loss/add": 2.0, "train/loss/sub": 3.0})[0]
    part = lines(progress, 2, {"train/loss/sub": 3.5})[0]
    assert "add       -  sub  3.5000" in part
    assert full.index("sub") == part.index("sub")


def test_many_tasks_stay_one_readable_line():
    tasks = [f"a_rather_long_task_name_{number}" for number in range(50)]
    progress = Progress(tasks, 100, 0, 0.0)
    record = {f"train/loss/{task}": float(number) for number, task in enumerate(tasks) if number != 49}
    (line,) = lines(progress, 1, {"train/loss": 9.0, **record})
    assert len(line) < 240
    assert "mean 24.0000 of 49/50 tasks" in line
    assert line.index("name_48 48.0000") < line.index("name_47 47.0000")
    assert "name_49" not in line
    assert "name_10 " not in line
