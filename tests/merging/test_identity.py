"""An adapter is merged into the model that it was trained on, and into no other one of that shape."""

import json
import shutil

import pytest
import torch
from merge_worlds import load, settings_of, world
from safetensors.torch import load_file, save_file

from mftrun.errors import ConfigError
from mftrun.merging.adapter import SavedAdapter
from mftrun.merging.finding import Wanted, find_base
from mftrun.merging.identity import RECORD, record_base
from mftrun.weight_files.fingerprint import Fingerprint, sampled

CARD = "# first\n\nAn adapter trained\n\n## Tasks\n\nlosses\n\n## Training\n\nsettings\n\n## Use\n\nso\n"


@pytest.fixture
def made(tmp_path):
    return world(tmp_path / "one", target_modules=["q_proj"])


@pytest.fixture
def recorded(made):
    """An adapter whose run recorded its base."""
    record_base(made.adapter, load(made.base))
    return made


def copy_of(made, change=lambda name, one: one, name="copy", **settings):
    """The base in another folder, with some of its tensors changed."""
    folder = shutil.copytree(made.base, made.base.parent.parent / name)
    for file in folder.glob("*.safetensors"):
        tensors = {key: change(key, one) for key, one in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**settings_of(folder), **settings}))
    return folder


def projections(name, one):
    return one * 1.001 if "up_proj" in name else one


def found(made, base=None, **wanted):
    return find_base(SavedAdapter.find(made.adapter), Wanted(None if base is None else str(base), **wanted))


def refused(made, message, base=None, key="job.base", **wanted):
    with pytest.raises(ConfigError, match=message) as caught:
        found(made, base, **wanted)
    assert caught.value.key == key


def all_ends(name, one):
    return one.flip(0) if any(part in name for part in ("embed", "lm_head", "proj")) else one


@pytest.mark.parametrize("there", [True, False], ids=["beside the named base", "by the record alone"])
@pytest.mark.parametrize("change", [all_ends, projections])
def test_another_model_of_the_same_shapes(change, there, made):
    other = copy_of(made, change)
    if not there:
        record_base(made.adapter, load(made.base))
        shutil.rmtree(made.base)
    refused(made, r"another model than .*of \d+ tensors differ: .*leave job.base out", other)
    assert not found(made, other, allow_other=True).trained_on


def test_the_merged_model_is_no_base(made):
    merged = made.merge(dtype="bfloat16")
    refused(made, r"2 of \d+ tensors differ: .*q_proj", merged)


def test_a_base_that_was_changed_in_place(recorded):
    assert found(recorded).trained_on
    copied = copy_of(recorded, projections)
    shutil.rmtree(recorded.base)
    copied.rename(recorded.base)
    refused(recorded, "another model .*give the one it was trained on: job.base=DIR, or set")
    assert not found(recorded, allow_other=True).trained_on


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("trained_on", [torch.float32, torch.bfloat16])
def test_a_copy_in_another_dtype(trained_on, dtype, made):
    base = copy_of(made, lambda _, one: one.to(trained_on), "base")
    Fingerprint.of(base).write(made.adapter / RECORD)
    assert found(made, copy_of(made, lambda _, one: one.to(trained_on).to(dtype))).trained_on
    other = copy_of(made, lambda name, one: projections(name, one.to(trained_on).to(dtype)) * 1.02, "other")
    refused(made, "tensors differ", other)


def test_tied_weights_may_be_stored_twice_and_in_torchs_files(tmp_path):
    made = world(tmp_path / "one", "llama_tied", target_modules=["q_proj"])
    twice = tmp_path / "twice"
    twice.mkdir()
    shutil.copy(made.base / "config.json", twice)
    torch.save(load(made.base).state_dict(), twice / "pytorch_model.bin")
    assert found(made, twice).trained_on
    other = {**torch.load(twice / "pytorch_model.bin"), "lm_head.weight": torch.ones(96, 32)}
    torch.save(other, twice / "pytorch_model.bin")
    refused(made, "only one of them has lm_head.weight", twice)


def test_defaults_that_config_json_leaves_out(recorded):
    other = copy_of(recorded)
    settings = settings_of(other)
    settings.pop("attention_dropout")
    (other / "config.json").write_text(json.dumps(settings))
    assert found(recorded, other).trained_on
    changed = copy_of(recorded, name="changed", rms_norm_eps=1e-3)
    refused(recorded, "config.json differs in rms_norm_eps", changed)


def test_without_anything_to_compare_with_a_warning(made, caplog):
    other = copy_of(made)
    shutil.rmtree(made.base)
    assert not found(made, other).trained_on
    assert "is taken for" in caplog.text
    made = world(made.adapter.parent / "two", target_modules=["q_proj"])
    refused(made, "acts with job.base, or", key="job.allow_other_base", allow_other=True)


def test_a_record_that_is_damaged(recorded):
    (recorded.adapter / RECORD).write_text('{"format": 1}')
    refused(recorded, f"{RECORD} cannot be read", key="adapter")


def test_the_base_of_a_run_on_the_hub(made, monkeypatch):
    asked = []

    def snapshot(name, revision=None, allow_patterns=None, local_files_only=False):
        asked.append((name, revision, local_files_only))
        return str(made.base)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model = load(made.base)
    model.name_or_path, model.config._commit_hash = "owner/model", "abc"
    record_base(made.adapter, model)
    assert asked == [("owner/model", "abc", True)]
    assert Fingerprint.read(made.adapter / RECORD) == Fingerprint.of(made.base)


def test_a_base_that_is_gone_at_the_end_of_a_run(made, caplog):
    model = load(made.base)
    shutil.rmtree(made.base)
    record_base(made.adapter, model)
    assert "will not be able to check the adapter's base" in caplog.text
    assert not (made.adapter / RECORD).exists()


def test_the_card_tells_which_base_was_taken(recorded):
    (recorded.adapter / "README.md").write_text(CARD)
    other = copy_of(recorded, projections)
    card = (recorded.merge(base=str(other), allow_other_base=True) / "README.md").read_text()
    assert f"merged into `{other}`" in card
    assert f"was trained on `{recorded.base}`, which is not known to be the same" in card
    assert "losses are left out" in card
    assert "## Tasks" not in card
    assert "## Training\n\nsettings" in card


def test_the_card_tells_whose_losses_it_holds(recorded):
    (recorded.adapter / "README.md").write_text(CARD)
    card = (recorded.merge(base=str(copy_of(recorded))) / "README.md").read_text()
    assert (
        "What follows tells of the run that trained the adapter; the merged model was not evaluated.\n"
        in card
    )
    assert card.index("What follows") < card.index("## Tasks\n\nlosses")


def test_the_log_tells_where_weights_come_from_and_their_dtype(made, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.chdir(made.base)
    from mftrun.jobs.merge import MergeJob

    MergeJob(adapter="../adapter", output="../merged", dtype="bfloat16").run({}, made.base)
    assert "the base's weights reloaded from its files, written in bfloat16" in caplog.text
    assert f"merged model: {made.base.parent / 'merged'}" in caplog.text
    assert ".." not in caplog.text


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000, 7 * 10**10])
def test_what_is_sampled_of_a_tensor(size):
    chosen = sampled(size, 8)
    assert len(chosen) == min(size, 64)
    assert ((chosen >= 0) & (chosen < size)).all()
    if size >= 1000:
        assert chosen.min() < size / 4
        assert chosen.max() > size * 3 / 4
