"""A base on the hub is taken at the revision that the adapter was trained on."""

import json
from pathlib import Path

import pytest
import yaml
from merge_worlds import world

from mftrun.errors import ConfigError
from mftrun.jobs.merge import MergeJob

ID = "owner/model"
PATH = {"path": ID}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A base whose id is on the hub; what was asked of the hub."""
    made = world(tmp_path / "run", target_modules=["q_proj"])
    settings = made.adapter / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": ID}))
    asked, cache = [], tmp_path / "empty"

    def download(name, revision=None, allow_patterns=None, local_files_only=False):
        if local_files_only:
            return str(cache)
        asked.append((name, revision))
        if revision == "gone":
            raise FileNotFoundError("no such revision")
        return str(made.base)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return made, asked


def trained_by(made, model):
    (Path(made.adapter).parent / "config.yaml").write_text(yaml.safe_dump({"model": model}))


@pytest.mark.parametrize(
    ("model", "peft", "options", "expected"),
    [
        ({**PATH, "revision": "abc"}, None, {}, "abc"),
        ({**PATH, "revision": "abc"}, None, {"base": ID}, "abc"),
        ({**PATH, "revision": "abc"}, None, {"base_revision": "def"}, "def"),
        ({**PATH, "revision": "abc"}, None, {"base": "owner/other", "allow_other_base": True}, None),
        ({**PATH, "revision": None}, None, {}, None),
        ({"path": "owner/first", "revision": "abc"}, None, {}, None),
        (None, "ghi", {}, "ghi"),
        (None, None, {}, None),
    ],
)
def test_the_revision_of_training(model, peft, options, expected, hub):
    made, asked = hub
    settings = made.adapter / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "revision": peft}))
    if model is not None:
        trained_by(made, model)
    made.merge(verify=False, **options)
    assert asked == [(options.get("base", ID), expected)]


def test_another_revision_is_told(hub, caplog):
    made, _ = hub
    trained_by(made, {**PATH, "revision": "abc"})
    made.merge(verify=False, base_revision="def")
    assert "owner/model at def is taken; the adapter was trained on abc" in caplog.text


def test_a_revision_that_is_gone(hub, tmp_path):
    made, _ = hub
    trained_by(made, {**PATH, "revision": "gone"})
    with pytest.raises(ConfigError, match="owner/model at revision gone is neither"):
        MergeJob(adapter=str(made.adapter), output=str(tmp_path / "out")).run({}, tmp_path)
