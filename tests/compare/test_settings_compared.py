"""The settings that tell runs apart."""

import pytest
from run_folders import settings, write_run

from mftrun.compare.settings import differing
from mftrun.runs import RunFolder

MFT = {"_target_": "x.Objective", "weighting": {"_target_": "x.Static", "weights": {}}}
COBA = {"_target_": "x.Objective", "weighting": {"_target_": "x.Coba", "warmup": 5, "tau": 2.0}}


def compared(folder, *runs):
    """Each run is a config, or a config and its options."""
    paths = []
    for number, run in enumerate(runs):
        config, choices = run if isinstance(run, tuple) else (run, None)
        paths.append(write_run(folder / str(number), config, choices=choices))
    return differing([RunFolder.of(path) for path in paths])


def test_equal_runs_do_not_differ(tmp_path):
    assert compared(tmp_path, settings(), settings()) == [{}, {}]
    assert compared(tmp_path / "one", settings()) == [{}]


def test_only_what_differs_and_what_computes(tmp_path):
    first = settings(seed=1, checkpoint={"keep_last": 2}, data={"cache_dir": "/a", "paths": ["x", "y"]})
    second = settings(seed=2, checkpoint={"keep_last": 9}, data={"cache_dir": "/b", "paths": ["x"]})
    assert compared(tmp_path, first, second) == [
        {"seed": "1", "data.paths": '["x", "y"]'},
        {"seed": "2", "data.paths": '["x"]'},
    ]


def test_an_option_stands_for_the_values_that_it_brings(tmp_path):
    runs = [(settings(loss=MFT), {"loss": "mft"}), (settings(loss=COBA), {"loss": "coba"})]
    assert compared(tmp_path, *runs) == [{"loss": "mft"}, {"loss": "coba"}]


def test_a_value_that_the_option_does_not_explain_is_told(tmp_path):
    slow = {**COBA, "weighting": {**COBA["weighting"], "warmup": 50}}
    runs = [
        (settings(loss=MFT), {"loss": "mft"}),
        (settings(loss=COBA), {"loss": "coba"}),
        (settings(loss=slow), {"loss": "coba"}),
    ]
    assert compared(tmp_path, *runs) == [
        {"loss": "mft"},
        {"loss": "coba", "loss.weighting.warmup": "5"},
        {"loss": "coba", "loss.weighting.warmup": "50"},
    ]


def test_without_options_the_class_stands_for_its_values(tmp_path):
    assert compared(tmp_path, settings(loss=MFT), (settings(loss=COBA), {"loss": "coba"})) == [
        {"loss.weighting": "Static"},
        {"loss.weighting": "Coba"},
    ]


def test_an_option_inside_a_group(tmp_path):
    runs = [
        (settings(loss=MFT), {"loss": "mft", "loss/weighting": "static"}),
        (settings(loss=COBA), {"loss": "mft", "loss/weighting": "coba"}),
    ]
    assert compared(tmp_path, *runs) == [{"loss.weighting": "static"}, {"loss.weighting": "coba"}]


@pytest.mark.parametrize("config", [None, {}])
def test_a_run_without_a_config_is_no_reason_to_differ(tmp_path, config):
    found = compared(
        tmp_path, settings(seed=1), config if config is None else settings(seed=1), settings(seed=2)
    )
    assert found[0] == {"seed": "1"}
    assert found[1] == ({} if config is None else {"seed": "1"})


def test_a_key_that_a_run_lacks_is_absent(tmp_path):
    older = {key: value for key, value in settings().items() if key != "train"}
    found = compared(tmp_path, settings(train={"max_steps": 4}), older)
    assert found == [{"train.max_steps": "4"}, {}]
