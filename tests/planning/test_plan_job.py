"""job=plan from the command line's configuration to its table and file."""

import json

import pytest
from planning.simulated import LLAMA_8B

from mftrun.build import build
from mftrun.cli import Job
from mftrun.compose import compose
from mftrun.distributed.replicated import Ddp
from mftrun.errors import ConfigError
from mftrun.jobs.described import choose_strategy
from mftrun.jobs.plan import PlanJob, memory_size
from mftrun.schema import check


def plan(run_dir, *overrides):
    """Runs job=plan and returns what it wrote."""
    config = compose(["job=plan", *overrides], run_dir)
    job = build(config["job"], Job, "job", allowed=check(config).allowed_targets)
    job.run(config, run_dir)
    return json.loads((run_dir / "plan.json").read_text())


@pytest.fixture
def big(tmp_path):
    """A model of which there is nothing but config.json."""
    folder = tmp_path / "big"
    folder.mkdir()
    sizes = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **LLAMA_8B}
    (folder / "config.json").write_text(json.dumps(sizes))
    return ["model=llama", f"model.path={folder}", f"data.tasks.mine.path={tmp_path}"]


def test_plain_run_is_planned(tmp_path, capsys):
    values = plan(tmp_path)
    assert values["parameters"] == values["trained"]
    assert values["device"]["optimizer"] == 8 * values["trained"]
    assert values["needed"] == values["allocated"] + values["slack"] + values["context"]
    printed = capsys.readouterr().out
    assert f"llama: {values['parameters']:,} parameters" in printed
    assert "allocated at the peak" in printed


def test_sizes_are_read_without_weights(big, tmp_path, capsys):
    values = plan(tmp_path, *big, "peft=qlora", "job.device_memory=24GiB")
    assert values["parameters"] > 8_030_261_248
    assert values["trained"] < 300_000_000
    assert values["fits"] is False
    assert values["options"][0]["change"] == "train.gradient_checkpointing=true"
    assert "would fit with" in capsys.readouterr().out


def test_a_run_that_fits_needs_no_advice(big, tmp_path, capsys):
    values = plan(tmp_path, *big, "peft=lora", "job.device_memory=80GB", "job.devices=8")
    assert (values["fits"], values["options"], values["ranks"]) == (True, [], 8)
    assert "fits into" in capsys.readouterr().out


def test_what_is_frozen_is_held_in_16_bit_and_what_is_trained_in_32(big, tmp_path):
    lora = plan(tmp_path, *big, "peft=lora")
    base = lora["parameters"] - lora["trained"]
    assert lora["device"]["weights"] == 2 * base + 4 * lora["trained"]
    full = plan(tmp_path, *big, "train.precision=fp32")
    assert full["device"]["weights"] == 4 * base


def test_adapters_that_read_weights_are_planned_without_any(big, tmp_path):
    assert plan(tmp_path, *big, "peft=pissa")["trained"] > 0


@pytest.mark.parametrize("rows", ["packing", "padding", "padding_free", "concat"])
def test_rows_of_every_kind(rows, tmp_path):
    assert plan(tmp_path, f"rows={rows}")["allocated"] > 0


def test_joined_rows_pay_for_the_square_of_them_all(big, tmp_path):
    joined = plan(tmp_path, *big, "peft=lora", "rows=padding_free", "train.micro_batch_size=4")
    apart = plan(tmp_path, *big, "peft=lora", "rows=packing", "train.micro_batch_size=4")
    mask = 2048 * 2048 * 2
    extra = joined["device"]["activations"] - apart["device"]["activations"]
    assert extra == 32 * (16 - 4) * mask


@pytest.mark.parametrize(("text", "size"), [("80GiB", 80 * 2**30), ("80 GB", 80 * 10**9), ("0.5GiB", 2**29)])
def test_memory_sizes(text, size):
    assert memory_size(text) == size


@pytest.mark.parametrize("text", ["much", "80", "80 apples", "0GiB", "-1", "1.2.3GiB"])
def test_other_memory_is_refused(text):
    with pytest.raises(ConfigError, match=r"job\.device_memory"):
        PlanJob(device_memory=text)


def test_less_than_one_device_is_refused():
    with pytest.raises(ConfigError, match=r"job\.devices"):
        PlanJob(devices=0)


def test_a_model_of_another_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ConfigError, match="holds a qwen2 model"):
        plan(tmp_path, "model=llama", f"model.path={tmp_path}", f"data.tasks.mine.path={tmp_path}")


def test_a_folder_without_sizes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.path"):
        plan(tmp_path, "model=auto", f"model.path={tmp_path}", f"data.tasks.mine.path={tmp_path}")


@pytest.mark.parametrize(("peft", "expected"), [("none", "fsdp"), ("lora", "ddp"), ("qlora8", "ddp")])
def test_a_strategy_is_chosen_for_a_configuration(big, peft, expected):
    config = check(compose([*big, f"peft={peft}"]))
    choice = choose_strategy(config, 8, 80 * 2**30, Ddp())
    assert choice.strategy == expected
    assert f"{expected} needs about" in choice.reason


def test_8_bit_weights_are_not_given_to_fsdp(big):
    config = check(compose([*big, "peft=qlora8", "train.gradient_checkpointing=true"]))
    assert choose_strategy(config, 8, 12 * 2**30, Ddp()).strategy == "zero3"
