"""The files of a model as both merging and conversion read and write them."""

import errno
import json
import os

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mftrun.errors import ConfigError, DataError
from mftrun.weight_files.checkpoint import Checkpoint
from mftrun.weight_files.hub import is_hub_id
from mftrun.weight_files.output import bytes_of, new_folder, written_folder
from mftrun.weight_files.writer import ShardWriter

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("5GB", 5 * 10**9),
        ("500MB", 500 * 10**6),
        ("5gb", 5 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("30kb", 30_000),
        ("5000", 5000),
        (5000, 5000),
    ],
)
def test_sizes(size, expected):
    assert bytes_of(size) == expected


@pytest.mark.parametrize("size", ["", "0", "0GB", "5.5", "-5GB", "5 lots", "5G", "GB"])
def test_what_is_no_size(size):
    with pytest.raises(ConfigError, match="must be a size") as caught:
        bytes_of(size)
    assert caught.value.key == "job.shard_size"


def test_names_on_the_hub():
    assert is_hub_id("owner/a.name-2")
    assert not any(map(is_hub_id, ("name", "../name", "./name", "a/b/c", "/a/b", "a b/c")))


def part(folder, name, **values):
    save_file({key: torch.full((2,), float(value)) for key, value in values.items()}, folder / name)


def index(folder, **places):
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))


def values(folder):
    checkpoint = Checkpoint(folder)
    return {name: float(checkpoint.read(name)[0]) for name in checkpoint.kinds}


def test_of_several_forms_is_read_what_transformers_reads(tmp_path):
    torch.save({"w": torch.full((2,), 4.0)}, tmp_path / "pytorch_model.bin")
    assert values(tmp_path) == {"w": 4}
    part(tmp_path, "model-00001-of-00002.safetensors", w=2)
    part(tmp_path, "model-00002-of-00002.safetensors", v=3)
    with pytest.raises(DataError, match="no index"):
        values(tmp_path)
    index(tmp_path, w="model-00001-of-00002.safetensors", v="model-00002-of-00002.safetensors")
    assert values(tmp_path) == {"w": 2, "v": 3}
    part(tmp_path, WHOLE, w=1)
    assert values(tmp_path) == {"w": 1}


def test_transformers_prefers_the_same(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2))
    model.save_pretrained(tmp_path, max_shard_size=300)
    assert (tmp_path / INDEX).exists()
    whole = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    save_file(whole, tmp_path / WHOLE, metadata={"format": "pt"})
    weight = LlamaForCausalLM.from_pretrained(tmp_path).state_dict()["model.norm.weight"]
    assert torch.equal(weight, Checkpoint(tmp_path).read("model.norm.weight"))


def test_what_an_index_names_must_be_there(tmp_path):
    part(tmp_path, "model-1.safetensors", w=1)
    index(tmp_path, w="model-1.safetensors", v="model-1.safetensors")
    assert Checkpoint(tmp_path).absent == ["v"]
    index(tmp_path, w="model-1.safetensors", v="model-2.safetensors")
    with pytest.raises(DataError, match=r"model-2\.safetensors: is missing"):
        values(tmp_path)
    (tmp_path / INDEX).write_text('{"weight_map": []}')
    with pytest.raises(DataError, match="is no index"):
        values(tmp_path)


@pytest.mark.parametrize("name", [WHOLE, "pytorch_model.bin"])
def test_a_file_that_ends_too_early(name, tmp_path):
    tensors = {"w": torch.ones(1000)}
    (save_file if name == WHOLE else torch.save)(tensors, tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:2000])
    with pytest.raises(DataError, match=f"{name}: cannot be read"):
        values(tmp_path)


def test_files_are_divided_and_indexed(tmp_path):
    writer = ShardWriter(tmp_path, 40)
    for number in range(4):
        writer.add(f"w{number}", torch.full((4,), float(number)))
    writer.finish()
    assert values(tmp_path) == {"w0": 0, "w1": 1, "w2": 2, "w3": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        INDEX,
    ]
    assert set(load_file(tmp_path / "model-00001-of-00002.safetensors")) == {"w0", "w1"}
    assert json.loads((tmp_path / INDEX).read_text())["metadata"]["total_size"] == 64


def write_one(output):
    with written_folder(output) as folder:
        writer = ShardWriter(folder, 40)
        writer.add("w", torch.ones(2))
        writer.finish()


@pytest.mark.parametrize(
    "error", [SafetensorError("No space left on device"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]
)
def test_a_disk_that_fails_is_named(error, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr("mftrun.weight_files.writer.save_file", fail)
    output = tmp_path / "model"
    with pytest.raises(ConfigError, match=r"model cannot be written .*No space left") as caught:
        write_one(output)
    assert caught.value.key == "output"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_one(tmp_path / "file" / "model")
    with pytest.raises(ConfigError, match="exists already"):
        new_folder(str(tmp_path / "file"))
