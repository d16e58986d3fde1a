from __future__ import annotations

import math

import pytest

from mftrun.errors import ConfigError
from mftrun.losses.weightings import Static

TASKS = ["code_completion", "text_to_sql", "translation"]


def test_unnamed_tasks_weigh_one():
    assert Static({"translation": 2.5}).build(TASKS).current().tolist() == [1.0, 1.0, 2.5]
    assert Static().build(TASKS).current().tolist() == [1.0, 1.0, 1.0]
    assert Static({}).build(TASKS).current().tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf, "2", None])
def test_impossible_weight(weight):
    with pytest.raises(ConfigError) as caught:
        Static({"translation": weight})
    assert caught.value.key == "loss.weighting.weights.translation"
    assert repr(weight) in caught.value.message


def test_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        Static({"text2sql": 2.0}).build(TASKS)
    assert caught.value.key == "loss.weighting.weights.text2sql"
    assert "text_to_sql" in caught.value.message


def test_all_weights_zero_is_refused():
    with pytest.raises(ConfigError, match="weight 0"):
        Static(dict.fromkeys(TASKS, 0)).build(TASKS)
    assert Static(dict.fromkeys(TASKS[:2], 0)).build(TASKS).current().tolist() == [0, 0, 1]


def test_knows_whether_it_weighs():
    assert not Static().weighs
    assert not Static({"translation": 1}).weighs
    assert Static({"translation": 0}).weighs
