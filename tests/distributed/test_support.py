"""The list of what works: as the options are, as the page says, and as runs are refused."""

from pathlib import Path

import pytest

from mftrun.compose import compose
from mftrun.distributed import support
from mftrun.errors import ConfigError
from mftrun.jobs.preparation import build_group, check_parts
from mftrun.schema import RunConfig

ROOT = Path(__file__).resolve().parents[2]
PEFT = sorted(path.stem for path in (ROOT / "conf" / "peft").glob("*.yaml"))
CELLS = [(strategy, kind.option) for strategy in support.options() for kind in support.KINDS]
REFUSED = [
    (strategy, option)
    for strategy, option in CELLS
    if (rule := support.rule_for(support.options()[strategy], support.examples()[option])) and rule.refuses
]


def built(tmp_path, group, *overrides):
    return build_group(RunConfig.from_dict(compose(overrides, tmp_path)), group)


def test_the_page_has_the_table():
    assert support.table() in (ROOT / "docs" / "distributed.md").read_text()


@pytest.mark.parametrize("name", support.options())
def test_the_strategies_of_the_list_are_the_options(tmp_path, name):
    assert built(tmp_path, "distributed", f"distributed={name}") == support.options()[name]


def test_every_adapter_is_of_one_kind(tmp_path):
    kinds = {name: support.kind_of(built(tmp_path, "peft", f"peft={name}")).option for name in PEFT}
    assert set(kinds.values()) == {kind.option for kind in support.KINDS}
    assert all(kinds[kind.option] == kind.option for kind in support.KINDS)
    assert support.examples().keys() == {kind.option for kind in support.KINDS}
    for option, adapter in support.examples().items():
        assert support.kind_of(adapter).option == option


@pytest.mark.parametrize(("strategy", "option"), REFUSED)
def test_what_does_not_work_is_refused_with_what_does(tmp_path, strategy, option):
    chosen, adapters = support.options()[strategy], support.examples()
    with pytest.raises(ConfigError) as refusal:
        support.check_combination(chosen, adapters[option])
    assert refusal.value.key == "peft"
    for nearest in refusal.value.message.rpartition("; use ")[2].split(", or "):
        group, _, name = nearest.partition("=")
        pair = {"distributed": chosen, "peft": adapters[option]}
        pair[group] = built(tmp_path, group, nearest)
        support.check_combination(pair["distributed"], pair["peft"])
        assert name


def test_what_works_is_not_refused():
    strategies, adapters = support.options(), support.examples()
    for strategy, option in CELLS:
        if (strategy, option) not in REFUSED:
            support.check_combination(strategies[strategy], adapters[option])


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(support.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"mftrun\[deepspeed\]"):
        support.check_combination(support.options()["zero1"], support.examples()["none"])


def test_weights_that_are_whole_cannot_be_offloaded():
    with pytest.raises(ConfigError, match="distributed=zero3_offload"):
        support.Zero(stage=2, offload_weights=True)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["distributed=zero2", "distributed.bucket_size=0"], "distributed.bucket_size: must be 1 or more"),
        (["distributed=zero2", "distributed.persistence_threshold=5"], "acts at stage 3 alone"),
        (["distributed=zero2", "distributed.options={stage:3}"], "options.stage: has a key of its own"),
        (["distributed=zero2", "distributed.options={subgroup_size:9}"], "did you mean sub_group_size"),
        (["distributed=zero3", "distributed.options={sub_group_size:many}"], "options.sub_group_size"),
        (
            ["distributed=zero3", "peft=lora", "peft.modules_to_save=[lm_head]"],
            "peft.modules_to_save: lm_head",
        ),
        (
            ["distributed=zero3", "model=llama", "model.path=M", "model.dtype=bfloat16"],
            "model.dtype: DeepSpeed",
        ),
        (["distributed=tp", "loss=gradnorm"], "loss.weighting: gradnorm cannot measure"),
    ],
)
def test_what_would_not_act_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, overrides, words):
    monkeypatch.setattr("mftrun.models.pretrained.Pretrained.check", lambda self: None)
    with pytest.raises(ConfigError) as refused:
        check_parts(RunConfig.from_dict(compose(overrides, tmp_path)))
    assert words in str(refused.value)
