"""Every adapter that can be trained here can be merged, and is verified."""

import pytest
import yaml
from merge_worlds import base_folder, load, logits, saved

from mftrun.build import build
from mftrun.jobs.merge import MergeJob
from mftrun.models.adapters import Adapter
from mftrun.paths import resource_dir

# A quantised base is tested as a run; the base that was trained on is the same without.
OPTIONS = sorted(
    path.stem for path in (resource_dir("conf") / "peft").glob("*.yaml") if path.stem not in ("none", "qdora")
)
# Sizes that every method can divide.
SIZES = {"hidden_size": 64, "intermediate_size": 64, "num_key_value_heads": 4, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return base_folder(tmp_path_factory.mktemp("base"), **SIZES)


@pytest.mark.parametrize("option", [name for name in OPTIONS if not name.startswith("qlora")])
def test_option_is_merged(option, base, tmp_path):
    node = yaml.safe_load((resource_dir("conf") / "peft" / f"{option}.yaml").read_text())
    if "target_modules" in node:
        node["target_modules"] = "all-linear"
    if "r" in node:
        node["r"] = 4
    adapter = build(node, Adapter, "peft")
    made = saved(tmp_path / "adapter", base, adapter.apply(load(base)), adapter)
    output = tmp_path / "merged"
    MergeJob(adapter=str(made.adapter), output=str(output)).run({}, tmp_path)
    assert made.difference(output) < 1e-4
    assert float((logits(load(base)) - made.logits).abs().max()) > 1e-3
