import subprocess
import sys

import numpy as np
import pytest

from mftrun.tracking.curves import _zero_from, plot_curves, smoothed


def records(tasks, steps=60):
    lines = []
    for step in range(1, steps + 1):
        present = [task for number, task in enumerate(tasks) if (step + number) % 3]
        lines.append({"step": step, **{f"train/loss/{task}": 5.0 / step + len(task) for task in present}})
        if step % 20 == 0:
            lines.append({"step": step, **{f"valid/loss/{task}": 6.0 / step + len(task) for task in tasks}})
    return lines


def picture(path):
    from matplotlib.image import imread

    return imread(path)


def colorful(image):
    """Share of the pixels that are no shade of gray."""
    return float((np.ptp(image[..., :3], axis=2) > 0.15).mean())


@pytest.mark.parametrize("count", [1, 3, 30])
def test_a_picture_for_any_number_of_tasks(tmp_path, count):
    tasks = [f"task_{number}" for number in range(count)]
    plot_curves(records(tasks), tasks, tmp_path / "curves.png")
    image = picture(tmp_path / "curves.png")
    assert image.shape[0] == 624  # 5.2 inches at 120 dpi
    assert image.shape[1] > 1500
    assert colorful(image) > 0.002
    assert [item.name for item in tmp_path.iterdir()] == ["curves.png"]


def weighted(tasks, weight):
    """Records with the weights that `weight(step, number)` gives."""
    return [
        record | {f"weight/{task}": weight(record["step"], number) for number, task in enumerate(tasks)}
        for record in records(tasks)
        if f"valid/loss/{tasks[0]}" not in record
    ]


def width(path, lines, tasks):
    plot_curves(lines, tasks, path)
    return picture(path).shape[1]


@pytest.mark.filterwarnings("error")  # matplotlib warns where panels do not fit
@pytest.mark.parametrize("count", [2, 30])
def test_weights_that_change_have_a_panel_and_constant_ones_do_not(tmp_path, count):
    tasks = [f"task_{number}" for number in range(count)]
    without = width(tmp_path / "a.png", records(tasks), tasks)
    assert width(tmp_path / "b.png", weighted(tasks, lambda step, number: 1.0 + number), tasks) == without
    changing = width(tmp_path / "c.png", weighted(tasks, lambda step, number: step / (number + 1)), tasks)
    assert changing == without + 720  # 6 inches at 120 dpi


def test_one_record_of_weights_changes_nothing(tmp_path):
    line = {"step": 1, "train/loss/a": 1.0}
    weighed = width(tmp_path / "a.png", [line | {"weight/a": 0.5}], ["a"])
    assert weighed == width(tmp_path / "b.png", [line], ["a"])


def test_the_step_from_which_on_a_weight_is_0():
    steps = [10, 20, 30, 40]
    assert _zero_from(steps, [1.0, 0.0, 1.0, 0.0]) == [40]
    assert _zero_from(steps, [1.0, 0.5, 0.0, 0.0]) == [30]
    for never in ([1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]):
        assert _zero_from(steps, never) == []
    assert _zero_from([], []) == []


def test_single_points_are_visible_and_gaps_and_nulls_are_left_out(tmp_path):
    tasks = ["a", "b", "never", "$dollar$"]
    nothing = tmp_path / "nothing.png"
    plot_curves([], tasks, nothing)
    points = [
        {"step": 1, "train/loss/a": 3.0, "train/loss/b": None},
        {"step": 1, "valid/loss/b": 2.0},
    ]
    plot_curves(points, tasks, tmp_path / "points.png")
    assert colorful(picture(tmp_path / "points.png")) > colorful(picture(nothing))


def test_a_task_has_one_color_whatever_others_measured(tmp_path):
    def hue(tasks, measured):
        line = [{"step": step, f"train/loss/{measured}": 1.0} for step in range(9)]
        plot_curves(line, tasks, tmp_path / "x.png")
        image = picture(tmp_path / "x.png")[100:, :780, :3]  # the left panel
        strongest = np.ptp(image, axis=2).argmax()
        return image.reshape(-1, 3)[strongest]

    assert hue(["a", "b"], "a") == pytest.approx([31 / 255, 119 / 255, 180 / 255], abs=0.05)
    assert hue(["a", "b"], "b") == pytest.approx([255 / 255, 127 / 255, 14 / 255], abs=0.05)


def test_smoothing_keeps_level_slope_and_ends():
    assert smoothed([]) == []
    assert smoothed([4.0]) == [4.0]
    line = [float(value) for value in range(200)]
    assert smoothed(line) == pytest.approx(line)
    noisy = [(-1.0) ** number for number in range(200)]
    assert max(map(abs, smoothed(noisy)[20:-20])) < 0.2
    assert smoothed([3.0, 1.0]) == [3.0, 1.0]


def test_no_global_state_of_matplotlib_is_touched(tmp_path):
    script = (
        "import sys; from pathlib import Path; from mftrun.tracking.curves import plot_curves\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plot_curves([{'step': 1, 'train/loss/a': 1.0}], ['a'], Path(sys.argv[1]) / 'c.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True)
