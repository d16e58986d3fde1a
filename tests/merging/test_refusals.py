"""What does not fit together is refused, named, and leaves nothing behind."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from merge_worlds import base_folder, tokenizer, world
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mftrun.errors import ConfigError, DataError, MftrunError
from mftrun.jobs.merge import MergeJob

WEIGHTS = "adapter_model.safetensors"


def change_weights(made, change):
    tensors = load_file(made.adapter / WEIGHTS)
    change(tensors)
    save_file(tensors, made.adapter / WEIGHTS)


def change_settings(made, **changes):
    path = made.adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(made, key, message, **settings):
    with pytest.raises(ConfigError, match=message) as caught:
        made.merge(**settings)
    assert caught.value.key == key
    assert sorted(path.name for path in made.adapter.parent.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 64}, r"q_proj.lora_A.weight has the shape \[2, 32\], .*ask for \[2, 64\]"),
        ({"num_hidden_layers": 1}, r"has no place for: .*layers\.1\."),
        ({"num_hidden_layers": 3}, r"lacks .*layers\.2\."),
    ],
)
def test_base_of_another_shape(changes, message, tmp_path):
    made = world(tmp_path, target_modules=["q_proj"])
    for path in made.base.iterdir():
        path.unlink()
    base_folder(made.base, **changes)
    refused(made, "adapter", message)


def test_base_without_the_layers(tmp_path):
    made = world(tmp_path)
    for path in made.base.iterdir():
        path.unlink()
    base_folder(made.base, "gpt_neox")
    refused(made, "adapter", "does not fit its base")


def test_rank_that_is_not_the_weights(tmp_path):
    made = world(tmp_path, target_modules=["q_proj"])
    change_settings(made, r=4)
    refused(made, "adapter", r"lora_A.weight has the shape \[2, 32\], and rank and base .* \[4, 32\]")


def test_tensor_that_is_missing_and_one_too_many(tmp_path):
    made = world(tmp_path)
    change_weights(made, lambda tensors: tensors.update(other=torch.ones(2)))
    refused(made, "adapter", "holds tensors that this base has no place for: other;")
    change_weights(made, lambda tensors: tensors.pop(sorted(tensors)[0]))
    refused(made, "adapter", "lacks base_model.model")


def test_values_that_are_not_finite(tmp_path):
    made = world(tmp_path)
    change_weights(made, lambda tensors: next(iter(tensors.values())).fill_(float("nan")))
    refused(made, "adapter", "NaN", verify=False)


def test_tokenizer_that_is_larger_than_the_embeddings(tmp_path):
    made = world(tmp_path)
    tokenizer().save_pretrained(made.adapter)
    refused(made, "adapter", r"tokenizer has \d+ entries, .* 96 rows")


def test_base_that_is_another(tmp_path):
    made = world(tmp_path / "one")
    other = base_folder(tmp_path / "other", rms_norm_eps=1e-3)
    same = base_folder(tmp_path / "same")
    refused(made, "job.base", "is another model than", base=str(other))
    assert made.difference(made.merge(base=str(same))) < 3e-6


def test_base_with_other_values(tmp_path):
    made = world(tmp_path / "one")
    other = base_folder(tmp_path / "other")
    for file in other.glob("*.safetensors"):
        save_file({name: one + 1 for name, one in load_file(file).items()}, file, metadata={"format": "pt"})
    refused(made, "job.base", "is another model than", base=str(other))
    made.merge(base=str(other), allow_other_base=True)


@pytest.mark.parametrize(
    ("recorded", "asked", "message"),
    [
        ("/nowhere/base", None, "is not here; give the base model's folder"),
        ("some/model", "another/model", "the adapter was trained on some/model"),
        (None, None, "does not say what it was trained on"),
    ],
)
def test_base_that_is_not_here(recorded, asked, message, tmp_path):
    made = world(tmp_path)
    change_settings(made, base_model_name_or_path=recorded)
    refused(made, "job.base", message, base=asked)


def test_quantised_base_files(tmp_path):
    made = world(tmp_path)
    path = made.base / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "quantization_config": {"quant_method": "gptq"}})
    )
    refused(made, "job.base", "quantised already")


def test_base_that_lacks_weights(tmp_path):
    made = world(tmp_path)
    file = next(iter(sorted(made.base.glob("*.safetensors"))))
    tensors = load_file(file)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, file)
    refused(made, "job.base", "lacks weights, such as")


def test_what_is_no_adapter(tmp_path):
    made = world(tmp_path / "one")
    for folder, message in [
        (tmp_path / "nothing", "is not a folder"),
        (made.base, "holds a whole model"),
        (tmp_path, "holds no adapter_config.json"),
    ]:
        with pytest.raises(ConfigError, match=message):
            MergeJob(adapter=str(folder), output=str(tmp_path / "out")).run({}, tmp_path)


def test_kind_that_no_weights_stand_for(tmp_path):
    made = world(tmp_path)
    change_settings(made, peft_type="PREFIX_TUNING")
    refused(made, "adapter", "PREFIX_TUNING")


def test_folder_that_holds_something(tmp_path):
    made = world(tmp_path)
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "mine").touch()
    with pytest.raises(ConfigError, match="exists already"):
        made.merge()
    assert (tmp_path / "merged" / "mine").exists()


def test_quantised_values_without_a_run(tmp_path):
    refused(world(tmp_path), "job.base_weights", "lies in no run's folder", base_weights="dequantize")


def test_disk_without_room(tmp_path, monkeypatch):
    made = world(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    refused(made, "output", "GB left")


def test_merge_that_went_wrong_is_not_kept(tmp_path, monkeypatch):
    from mftrun.merging.values import MergedValues

    made = world(tmp_path)
    monkeypatch.setattr(MergedValues, "merged", MergedValues._unmerged)
    with pytest.raises(MftrunError, match="is another than base and adapter"):
        made.merge()
    assert not (tmp_path / "merged").exists()


def test_adapter_that_rounding_swallows(tmp_path, caplog):
    made = world(tmp_path)
    change_weights(made, lambda tensors: [one.mul_(0.02) for one in tensors.values()])
    made.merge(dtype="bfloat16")
    assert "keep it with job.dtype=float32" in caplog.text


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"shard_size": "5 lots"}, "job.shard_size"),
        ({"shard_size": "0GB"}, "job.shard_size"),
        ({"verify_text": ""}, "job.verify_text"),
    ],
)
def test_impossible_settings(settings, key):
    with pytest.raises(ConfigError) as caught:
        MergeJob(adapter="a", output="b", **settings)
    assert caught.value.key == key


def test_disk_that_fails_while_the_model_is_written(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    made = world(tmp_path)
    monkeypatch.setattr("mftrun.weight_files.writer.save_file", fail)
    refused(made, "output", "merged cannot be written .*No space left", verify=False)


def test_adapter_file_that_ends_too_early(tmp_path):
    made = world(tmp_path)
    (made.adapter / WEIGHTS).write_bytes((made.adapter / WEIGHTS).read_bytes()[:3000])
    with pytest.raises(DataError, match=f"{WEIGHTS}: cannot be read"):
        made.merge()


def test_revision_of_a_folder(tmp_path):
    refused(world(tmp_path), "job.base_revision", "has no revision", base_revision="main")
