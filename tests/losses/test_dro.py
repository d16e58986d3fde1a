"""Group DRO, by hand."""

import math

import pytest
import torch
from weighting_courses import look, look_at_all

from mftrun.errors import ConfigError
from mftrun.losses.weightings import Dro


def shares(*powers):
    parts = [math.exp(power) for power in powers]
    return pytest.approx([part / sum(parts) for part in parts])


def test_by_hand():
    running = Dro(eta=0.5).build("ab")
    assert look(running, [2, 1]).tolist() == shares(1, 0.5)
    assert look(running, [3, 1], 1).tolist() == shares(2.5, 1)
    assert running.diagnostics()["excess"].tolist() == [3, 1]


def test_references_by_name():
    running = Dro(eta=1, references={"b": 3, "c": -1}).build("abc")
    assert look(running, [1, 2, 1]).tolist() == shares(1, -1, 2)
    assert running.diagnostics()["excess"].tolist() == [1, -1, 2]


def test_an_absent_task_keeps_its_place():
    running = Dro(eta=1).build("abc")
    look(running, [1, 2, 3])
    assert look(running, [math.nan, 1, 1], 1).tolist() == shares(1, 3, 4)
    assert running.diagnostics()["excess"].isnan().tolist() == [True, False, False]


def test_large_losses_do_not_overflow():
    running = Dro(eta=10).build("ab")
    weights = look_at_all(running, [[900, 1]] * 300)
    assert weights.isfinite().all()
    assert weights[-1].tolist() == [1, 0]
    assert running.state_dict()["memory"]["log_weights"].max() == 0


def test_what_a_frozen_task_weighed_is_shared_by_the_others():
    running = Dro(eta=1).build("abc")
    look(running, [1, 2, 3])
    frozen = look(running, [5, 0, 0], 1, active=[False, True, True])
    assert frozen[0] == 0
    assert frozen[1:].tolist() == shares(2, 3)
    assert look(running, [0, 0, 0], 2).tolist() == shares(1, 2, 3)


def test_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        Dro(references={"text2sql": 1.0}).build(["text_to_sql", "translation"])
    assert caught.value.key == "loss.weighting.references.text2sql"
    assert "text_to_sql" in caught.value.message


@pytest.mark.parametrize("reference", [math.nan, math.inf, "1", None, True])
def test_impossible_reference(reference):
    with pytest.raises(ConfigError) as caught:
        Dro(references={"a": reference})
    assert caught.value.key == "loss.weighting.references.a"


def test_no_references_are_zeros():
    one, other = Dro().build("ab"), Dro(references={}).build("ab")
    assert torch.equal(look(one, [1, 2]), look(other, [1, 2]))
