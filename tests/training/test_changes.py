import pytest

from mftrun.errors import ConfigError
from mftrun.training.changes import changed_keys, refuse_changes

CONFIG = {
    "seed": 1,
    "optimizer": {"lr": 1e-4, "weight_decay": 0.1},
    "train": {"micro_batch_size": 2, "max_steps": 10},
    "tracker": {"console": None},
}


def test_the_same_config_has_no_changes():
    assert changed_keys(CONFIG, CONFIG) == {}


def test_names_every_changed_key_with_both_values():
    new = {**CONFIG, "optimizer": {"lr": 3e-4, "weight_decay": 0.2}}
    with pytest.raises(ConfigError) as caught:
        refuse_changes(CONFIG, new, allowed=False)
    assert "optimizer.weight_decay: 0.1 -> 0.2" in str(caught.value)
    assert "optimizer.lr: 0.0001 -> 0.0003" in str(caught.value)


def test_a_new_and_a_missing_key_are_changes():
    new = {**CONFIG, "optimizer": {"eps": 1e-8, "weight_decay": 0.1}}
    assert changed_keys(CONFIG, new) == {"optimizer.lr": (1e-4, None), "optimizer.eps": (None, 1e-8)}


def test_how_the_batch_is_split_and_what_is_shown_may_change():
    new = {
        **CONFIG,
        "train": {"micro_batch_size": 8, "max_steps": 10},
        "tracker": {"wandb": {"mode": "offline"}},
    }
    refuse_changes(CONFIG, new, allowed=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"max_length": 9}}, r"data\.max_length: None -> 9"),
        ({"seed": 2}, "seed: 1 -> 2"),
        ({"rows": {"_target_": "b"}}, r"rows\._target_: None -> 'b'"),
        ({"sampler": {"until": "shortest"}}, "sampler.until"),
        ({"train": {**CONFIG["train"], "global_batch_size": 3}}, r"train\.global_batch_size: None -> 3"),
    ],
)
def test_other_data_and_another_order_are_refused_even_where_changes_are_allowed(change, message):
    with pytest.raises(ConfigError, match=message):
        refuse_changes(CONFIG, {**CONFIG, **change}, allowed=True)
    refuse_changes(CONFIG, {**CONFIG, "optimizer": {"lr": 1}}, allowed=True)


def test_what_early_stopping_watches_may_not_change_unseen():
    new = {**CONFIG, "evaluation": {"every": 3, "early_stopping": {"metric": "b"}}}
    assert list(changed_keys(CONFIG, new)) == ["evaluation.early_stopping.metric"]


def test_where_data_is_made_on_the_way_its_policies_may_change_if_that_is_allowed():
    old = {**CONFIG, "data": {"shard_samples": 5, "on_bad": "error", "max_length": 9}}
    new = {**old, "data": {**old["data"], "on_bad": "skip"}}
    with pytest.raises(ConfigError, match="allow_changed_config"):
        refuse_changes(old, new, allowed=False)
    refuse_changes(old, new, allowed=True)
    with pytest.raises(ConfigError, match=r"data\.max_length"):
        refuse_changes(old, {**old, "data": {**old["data"], "max_length": 8}}, allowed=True)
    whole = [{"data": {**config["data"], "shard_samples": None}} for config in (old, new)]
    with pytest.raises(ConfigError, match="start a new run"):
        refuse_changes(*whole, allowed=True)


@pytest.mark.parametrize(
    ("stopping", "free"), [({"per_task": None}, True), ({"per_task": 3}, False), ({"patience": 3}, False)]
)
def test_when_to_evaluate_is_free_unless_something_stops_by_it(stopping, free):
    old, new = ({**CONFIG, "evaluation": {"every": every, "early_stopping": stopping}} for every in (10, 20))
    assert (changed_keys(old, new) == {}) is free


@pytest.mark.parametrize(("watch", "free"), [(None, True), ("train", True), ("probe", False)])
def test_a_probe_is_free_where_no_weight_comes_from_it(watch, free):
    loss = {"weighting": {"watch": watch}}
    old, new = ({**CONFIG, "loss": loss, "probe": {"interval": interval}} for interval in (1, 20))
    assert (changed_keys(old, new) == {}) is free
