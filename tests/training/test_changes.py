import pytest

from mftrun.errors import ConfigError
from mftrun.training.changes import changed_keys, refuse_changes

CONFIG = {
    "seed": 1,
    "optimizer": {"lr": 1e-4},
    "train": {"micro_batch_size": 2, "max_steps": 10},
    "tracker": {"console": None},
}


def test_the_same_config_has_no_changes():
    assert changed_keys(CONFIG, CONFIG) == {}


def test_names_every_changed_key_with_both_values():
    new = {**CONFIG, "seed": 2, "optimizer": {"lr": 3e-4}}
    with pytest.raises(ConfigError) as caught:
        refuse_changes(CONFIG, new)
    assert "seed: 1 -> 2" in str(caught.value)
    assert "optimizer.lr: 0.0001 -> 0.0003" in str(caught.value)


def test_a_new_and_a_missing_key_are_changes():
    new = {**CONFIG, "optimizer": {"eps": 1e-8}}
    assert changed_keys(CONFIG, new) == {"optimizer.lr": (1e-4, None), "optimizer.eps": (None, 1e-8)}


def test_how_the_batch_is_split_and_what_is_shown_may_change():
    new = {
        **CONFIG,
        "train": {"micro_batch_size": 8, "max_steps": 10},
        "tracker": {"wandb": {"mode": "offline"}},
    }
    refuse_changes(CONFIG, new)
