"""Self-paced weights, against recorded numbers and by hand."""

import json
from pathlib import Path

import pytest
import torch
from weighting_courses import look, look_at_all

from mftrun.losses.weightings import SelfPaced

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "losses.json"


def straight(slopes, length=5):
    """Losses that fall or rise by these slopes, [length, K]."""
    return 10 + torch.arange(length, dtype=torch.float64)[:, None] * torch.tensor(slopes, dtype=torch.float64)


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"no reference numbers at {REFERENCE}")
def test_reproduces_the_reference():
    cases = json.loads(REFERENCE.read_text())["self_paced"]
    assert cases
    for case in cases:
        weights = SelfPaced(window=case["window"], scale=case["scale"])
        last = look_at_all(weights.build([str(k) for k in case["expected"]]), case["val_loss"])[-1]
        assert last.tolist() == pytest.approx(case["expected"], abs=1e-6)


def test_nearly_selects_with_the_released_scale():
    weights = look_at_all(SelfPaced(warmup=2).build("abc"), straight([-1, -1, 1]))
    assert weights[-1].tolist() == pytest.approx([0.5, 0.5, 0], abs=1e-3)


def test_by_hand():
    """Slopes -3 and -1: a is (-1.5, -0.5), its softmax (.2689, .7311), the scores (.4034, .3655)."""
    running = SelfPaced(scale=10, warmup=2).build("ab")
    weights = look_at_all(running, straight([-3, -1]))[-1]
    assert running.diagnostics()["slope"].tolist() == pytest.approx([-3, -1])
    assert running.diagnostics()["score"].tolist() == pytest.approx([0.403412, 0.365529], abs=1e-6)
    assert weights.tolist() == pytest.approx([0.593591, 0.406409], abs=1e-6)


def test_the_average_pace_gets_most():
    """Neither the slowest nor the fastest: -a softmax(a) is largest at a = -1."""
    weights = look_at_all(SelfPaced(warmup=2).build("abc"), straight([-0.2, -1, -3]))[-1]
    assert weights[1] > weights[2] > weights[0]


def test_leaves_uniform_when_warm():
    weights = look_at_all(SelfPaced(warmup=4).build("abc"), straight([-1, -1, 1]))
    assert torch.equal(weights[:3], torch.full((3, 3), 1 / 3, dtype=torch.float64))
    assert weights[3, 0] > 0.4


def test_a_task_that_comes_late_warms_up_on_its_own():
    running = SelfPaced(warmup=3).build("abc")
    course = straight([-1, -2, -1], length=7)
    course[:4, 2] = torch.nan
    weights = look_at_all(running, course)
    assert weights[5].tolist() == pytest.approx([*(weights[3, :2]).tolist(), 1 / 3])
    assert weights[6, 2] != pytest.approx(1 / 3)
    assert weights.sum(1).tolist() == pytest.approx([1] * 7)


def test_level_courses_weigh_alike():
    weights = look_at_all(SelfPaced(warmup=2).build("ab"), [[1, 2]] * 5)
    assert weights[-1].tolist() == [0.5, 0.5]


def test_only_the_window_counts():
    running = SelfPaced(window=3, warmup=2).build("ab")
    look_at_all(running, straight([-5, 3], length=20))
    look_at_all(running, straight([1, -1], length=3), 20)
    assert running.diagnostics()["slope"].tolist() == pytest.approx([1, -1])


def test_steps_count_not_observations():
    every, tenth = SelfPaced(warmup=2).build("ab"), SelfPaced(warmup=2).build("ab")
    for index, row in enumerate(straight([-5, 3])):
        look(every, row, index)
        look(tenth, row, 10 * index)
    assert tenth.diagnostics()["slope"].tolist() == pytest.approx([-0.5, 0.3])
    assert torch.allclose(tenth.current(), every.current())


@pytest.mark.parametrize(
    ("watch", "draws", "warm"), [("probe", 14, 14), ("probe", 3, 10), ("probe", None, 20), ("train", 14, 20)]
)
def test_warms_up_over_a_pass_of_the_probe(watch, draws, warm):
    weights = look_at_all(SelfPaced(watch=watch).build("abc", draws), straight([-1, -1, 1], length=30))
    uniform = [torch.allclose(one, torch.full((3,), 1 / 3, dtype=torch.float64)) for one in weights]
    assert uniform.index(False) == warm - 1
