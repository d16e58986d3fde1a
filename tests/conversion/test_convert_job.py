"""job=convert as a user runs it, and what becomes of its output."""

import json

import pytest
from commands import mftrun
from legacy_checkpoints import CONFIGS, tensors, write
from runs import SMALL, train, write_task
from safetensors.torch import load_file


def test_a_command_converts_and_its_model_trains(tmp_path):
    config = {**CONFIGS["chatglm3"], "seq_length": 256}
    source = write(tmp_path / "legacy", config, tensors(config), "bin", shards=2)
    native = tmp_path / "native"
    done = mftrun(tmp_path, "job=convert", f"source={source}", f"output={native}", "output_dir=log")
    assert done.returncode == 0, done.stdout
    assert "pytorch_model-00002-of-00002.bin (2 of 2) converted" in done.stdout
    assert f"model.path={native} model=chatglm2 or model=chatglm3 or model=codegeex2" in done.stdout
    assert json.loads((native / "config.json").read_text())["converted_from"] == "chatglm"
    tasks = write_task(tmp_path / "tasks", "forward", 8, longest=2)
    small = [override for override in SMALL if not override.startswith("model.")]
    run = tmp_path / "run"
    options = ["model=chatglm3", f"model.path={native}", f"data.paths=[{tasks}]", "train.max_steps=1"]
    train(run, *options, *small, "data.max_length=256", "template=model")
    trained, before = (load_file(folder / "model.safetensors") for folder in (run / "model", native))
    assert trained.keys() == before.keys()
    assert (trained["lm_head.weight"] != before["lm_head.weight"]).any()


@pytest.mark.parametrize("name", ["qwen", "baichuan2", "aquila2", "internlm2", "chatglm2", "codegeex2"])
def test_the_familys_option_takes_the_converted_folder(tmp_path, name):
    """And refuses the unconverted one, with the command to run."""
    from mftrun.errors import ConfigError
    from mftrun.jobs.convert import ConvertJob
    from mftrun.models.families import FAMILIES
    from mftrun.models.pretrained import Pretrained

    source, native = write(tmp_path / "legacy", CONFIGS[name], tensors(CONFIGS[name])), tmp_path / "native"
    ConvertJob(str(source), str(native)).run({}, tmp_path)
    accepted = FAMILIES[name].accepted
    Pretrained(str(native), accepted).check()
    with pytest.raises(ConfigError, match="job=convert"):
        Pretrained(str(source), accepted).check()
