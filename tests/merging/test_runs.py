"""From a run's folder: its adapter with its tokenizer, also on a base that was held in 4 bit."""

import json
import shutil

import pytest
import torch
import yaml
from merge_worlds import base_folder, load
from peft import PeftModel
from runs import overrides_for, plain_losses, train
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from mftrun.build import build
from mftrun.compose import compose
from mftrun.errors import ConfigError
from mftrun.jobs.merge import MergeJob
from mftrun.merging.identity import RECORD
from mftrun.merging.quantized import quantized_weights
from mftrun.models.quantization import quantized_layers
from mftrun.schema import check
from mftrun.tracking.jsonl import METRICS_NAME
from mftrun.weight_files.fingerprint import Fingerprint


@pytest.fixture(scope="module")
def run(tasks_dir, tmp_path_factory):
    """A run that trained adapters on a base of 4 bit, and was moved since."""
    pytest.importorskip("bitsandbytes")
    folder = tmp_path_factory.mktemp("runs")
    settings = ["train.max_steps=4", "train.precision=fp32", "optimizer.lr=0.02"]
    peft = ["peft=qlora", "peft.r=4", "peft.quantization.compute_dtype=float32"]
    overrides = overrides_for(tasks_dir, *settings, *peft)
    train(folder / "first", *overrides)
    (folder / "first" / "config.yaml").write_text(yaml.safe_dump(compose(overrides)))
    return (folder / "first").rename(folder / "moved")


def last_losses(run):
    lines = [json.loads(line) for line in (run / METRICS_NAME).read_text().splitlines()]
    found = [line for line in lines if any(key.startswith("valid/loss/") for key in line)][-1]
    return {key: value for key, value in found.items() if key.startswith("valid/loss/")}


def distance(model, run):
    """Largest difference from the losses that the run's last evaluation had."""
    losses, last = plain_losses(model, run), last_losses(run)
    return max(abs(losses[key] - last[key]) for key in losses)


def merge(run, output, **settings):
    MergeJob(adapter=str(run), output=str(output), **settings).run({}, output.parent)
    return output


def test_a_run_is_merged_from_the_command_line(run, tmp_path, caplog):
    caplog.set_level("INFO")
    merged = tmp_path / "merged"
    config = compose(["job=merge", f"adapter={run}", f"output={merged}"])
    check(config)
    build(config["job"], MergeJob, "job").run(config, tmp_path)
    assert distance(load(run / "base_model"), run) > 0.1
    assert 1e-4 < distance(load(merged), run) < 0.1
    assert len(AutoTokenizer.from_pretrained(merged)) == len(AutoTokenizer.from_pretrained(run / "model"))
    assert (
        "the base's weights reloaded from its files, not the 4-bit ones of training, written each"
        in caplog.text
    )
    assert "verified: logits on the probe text differ by" in caplog.text


def test_the_values_of_a_quantised_base_give_the_losses_of_training(run, tmp_path):
    merged = merge(run, tmp_path / "merged", base_weights="dequantize")
    assert distance(load(merged), run) < 1e-4


def test_a_run_records_its_base(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    assert Fingerprint.read(copied / "model" / RECORD) == Fingerprint.of(copied / "base_model")
    PeftModel.from_pretrained(load(copied / "base_model"), copied / "model")
    model = load(copied / "base_model")
    model.model.layers[1].mlp.up_proj.weight.data.mul_(1.01)
    model.save_pretrained(copied / "base_model")
    for adapter in (copied, next(copied.glob("checkpoints/step-*/model"), copied)):
        with pytest.raises(ConfigError, match=r"1 of \d+ tensors differ: .*up_proj"):
            merge(adapter, tmp_path / "merged")


def test_values_of_a_base_that_was_not_quantised(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["peft"]["quantization"] = None
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match="did not quantise its base"):
        merge(copied, tmp_path / "merged", base_weights="dequantize")


def test_layers_that_are_quantised_are_known(tmp_path):
    pytest.importorskip("bitsandbytes")
    for family in ("llama", "mixtral", "gpt2"):
        folder = base_folder(tmp_path / family, family)
        config = BitsAndBytesConfig(load_in_4bit=True)
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32)
        found = {f"{path}.weight" for path, _ in quantized_layers(model)}
        assert found == set(quantized_weights(load(folder)))
