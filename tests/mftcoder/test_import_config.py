"""job=import_config from a file to a command on the screen and an experiment in a folder."""

import json
import shlex
import subprocess
import sys

import pytest
from mftcoder.public_configs import PUBLIC

from mftrun.build import build
from mftrun.cli import Job
from mftrun.compose import compose
from mftrun.errors import ConfigError
from mftrun.jobs.import_config import ImportConfigJob
from mftrun.schema import check

MINE = {"data_paths": "[/data/a,/data/b]", "pretrained_model_path": "/models/mine", "model_type": "llama"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "coba_train_config.json"
    path.write_text(json.dumps({**PUBLIC["coba"], **MINE}))
    return path


def run(file, run_dir, **options):
    ImportConfigJob(str(file), **options).run({}, run_dir)


def printed_command(text):
    """The overrides of the command that was printed first."""
    return shlex.split(text.split("\n\n")[0].replace("\\\n", ""))[3:]


def test_the_printed_command_and_the_written_experiment_agree(file, tmp_path, capsys):
    run(file, tmp_path)
    printed = printed_command(capsys.readouterr().out)
    search = f"hydra.searchpath=[file://{tmp_path}]"
    written = compose([search, "experiment=coba_train_config"])
    check(written)
    assert written == compose([*printed, "name=coba_train_config"])
    assert written["model"]["path"] == "/models/mine"


def test_the_second_command_says_what_the_experiment_leaves_out(file, tmp_path, capsys):
    target = tmp_path / "mine.yaml"
    run(file, tmp_path, output=str(target), values={"output_dir": "/mnt/out"})
    told = capsys.readouterr().out
    assert 'name: "coba_train_config"' in target.read_text()
    assert f"move it to {tmp_path}/experiment/mine.yaml" in told
    assert shlex.split(told.split("python -m mftrun")[-1].replace("\\\n", "")) == [
        *("--config-dir", str(tmp_path), "experiment=mine", "output_dir=/mnt/out")
    ]


def test_a_file_of_something_else_is_refused(file, tmp_path):
    file.write_text(json.dumps({"a": 1}))
    with pytest.raises(ConfigError, match="none of the keys"):
        run(file, tmp_path)


def test_values_and_gpus_of_the_command_line(file, tmp_path, capsys):
    run(file, tmp_path, gpus=2, values={"model_type": "deepseek", "per_device_train_batch_size": 1})
    printed = printed_command(capsys.readouterr().out)
    assert {"model=deepseek", "train.global_batch_size=2", "train.micro_batch_size=1"} <= set(printed)


def test_what_stands_for_something_else_is_asked_for(file, tmp_path, capsys):
    run(file, tmp_path, values={"data_paths": "$DATA_PATHS"})
    text = capsys.readouterr().out
    assert "to be given by you\n  data.paths" in text
    with pytest.raises(ConfigError, match="needs a value"):
        compose(printed_command(text))


def test_an_experiment_that_is_there_is_not_replaced(file, tmp_path):
    target = tmp_path / "experiment" / "mine.yaml"
    run(file, tmp_path, output=str(target))
    first = target.read_text()
    with pytest.raises(ConfigError, match="is there already"):
        run(file, tmp_path, output=str(target), gpus=2)
    assert target.read_text() == first


def test_output_must_be_a_yaml_file(file, tmp_path):
    with pytest.raises(ConfigError, match=r"output: .*coba_train_config\.yaml"):
        run(file, tmp_path, output=str(tmp_path / "folder"))


def test_what_could_not_run_is_refused(file, tmp_path):
    with pytest.raises(
        ConfigError, match=r"coba_train_config.json asks for what cannot run here: data.paths"
    ):
        run(file, tmp_path, values={"data_paths": "[/data/a,/]"})
    assert not (tmp_path / "experiment").exists()


def test_no_gpu_is_refused():
    with pytest.raises(ConfigError, match="gpus: must be 1 or more"):
        ImportConfigJob("x.json", gpus=0)


def test_the_option_takes_its_keys_from_the_root(file, tmp_path):
    config = compose(["job=import_config", f"file={file}", "gpus=3", "values.seed=7"], tmp_path)
    job = build(config["job"], Job, "job", allowed=check(config).allowed_targets)
    assert job == ImportConfigJob(str(file), gpus=3, values={"seed": 7})


def test_the_command_line(file, tmp_path):
    command = [sys.executable, "-m", "mftrun", "job=import_config", f"file={file}", "output=mine.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("python -m mftrun model=llama peft=qlora")
    assert (tmp_path / "mine.yaml").exists()
