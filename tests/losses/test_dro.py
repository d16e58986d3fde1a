"""Group DRO, by hand."""

import math

import pytest
import torch
from weighting_courses import look, look_at_all

from mftrun.errors import ConfigError
from mftrun.losses.weightings import Dro


def softmax(*powers):
    parts = [math.exp(power) for power in powers]
    return [part / sum(parts) for part in parts]


def shares(*powers):
    return pytest.approx(softmax(*powers))


def memory(running):
    return running.state_dict()["memory"]["log_weights"]


def test_by_hand():
    running = Dro(eta=0.5).build("ab")
    assert look(running, [2, 1]).tolist() == shares(1, 0.5)
    assert look(running, [3, 1], 1).tolist() == shares(2.5, 1)
    assert running.diagnostics()["excess"].tolist() == [3, 1]


def test_references_by_name():
    running = Dro(eta=1, references={"b": 3, "c": -1}).build("abc")
    assert look(running, [1, 2, 1]).tolist() == shares(1, -1, 2)
    assert running.diagnostics()["excess"].tolist() == [1, -1, 2]


def test_an_absent_task_keeps_its_weight():
    running = Dro(eta=1).build("abc")
    before = look(running, [1, 2, 3]).tolist()
    after = look(running, [math.nan, 4, 1], 1).tolist()
    assert after[0] == pytest.approx(before[0], rel=1e-12)
    assert after[1:] == pytest.approx([(1 - before[0]) * part for part in softmax(6, 4)])
    assert running.diagnostics()["excess"].isnan().tolist() == [True, False, False]


def test_a_task_whose_data_has_ended_keeps_its_weight_for_good():
    running = Dro(eta=0.5).build("abc")
    before = look(running, [1, 2, 3])[0].item()
    kept = memory(running)[0]
    weights = look_at_all(running, [[math.nan, 3, 2.9]] * 400)
    assert memory(running)[0] == kept
    assert weights[:, 0].tolist() == pytest.approx([before] * 400, rel=1e-12)
    assert weights[-1].sum().item() == pytest.approx(1)


def test_where_one_task_alone_is_there_nothing_moves():
    running = Dro(eta=1).build("abc")
    before = look(running, [1, 2, 3])
    kept = memory(running)
    for losses in ([math.nan, 7, math.nan], [math.nan] * 3):
        assert look(running, losses, 1) is before
        assert torch.equal(memory(running), kept)


def test_large_losses_do_not_overflow():
    running = Dro(eta=10).build("ab")
    weights = look_at_all(running, [[900, 1]] * 300)
    assert weights.isfinite().all()
    assert weights[-1].tolist() == [1, 0]
    assert memory(running).max() == pytest.approx(0, abs=1e-12)


def test_what_a_frozen_task_weighed_is_shared_by_the_others():
    running = Dro(eta=1).build("abc")
    look(running, [1, 2, 3])
    frozen = look(running, [5, 0, 0], 1, active=[False, True, True])
    assert frozen[0] == 0
    assert frozen[1:].tolist() == shares(2, 3)
    assert look(running, [0, 0, 0], 2).tolist() == shares(1, 2, 3)
    assert look(running, [9, 2, 0], 3, active=[False, True, True])[1:].tolist() == shares(4, 3)


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
