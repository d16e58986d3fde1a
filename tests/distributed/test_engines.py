"""What a step is under every strategy: all gradients, scaled and clipped once, and none but finite ones."""

import json

import engine_worlds
import pytest
from runs import overrides_for, train

from mftrun.distributed import support
from mftrun.launch import run_ranks

pytest.importorskip("deepspeed")
pytest.importorskip("bitsandbytes")

# Tensor parallel has a test of its own: its ranks do not share the data.
STRATEGIES = [name for name in support.options() if name not in ("single", "tp")]


@pytest.fixture(scope="module")
def base(tasks_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    train(folder, *overrides_for(tasks_dir, "train.max_steps=1", "model.hidden_size=64"))
    return folder / "model"


def probed(base, strategy, ranks):
    task = {"strategy": strategy, "folder": str(base), "adapters": list(engine_worlds.ADAPTERS)}
    return json.loads(run_ranks(engine_worlds.probe, task, num_processes=ranks, log_file=None))


@pytest.fixture(scope="module")
def alone(base):
    return probed(base, "single", 1)


def assert_sound(report):
    assert report["problems"] == []
    assert report["noticed"]
    assert report["changed"] == [], "a step that was not finite"
    assert report["still"] == []


def test_one_process_is_sound(alone):
    for report in alone.values():
        assert_sound(report)
        assert min(report["norms"]) > engine_worlds.MAX_NORM, "clipping is idle"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_steps_are_those_of_one_process(base, alone, strategy):
    for name, report in probed(base, strategy, 2).items():
        assert_sound(report)
        assert report["norms"] == pytest.approx(alone[name]["norms"], rel=2e-3 if name == "qlora" else 1e-4)


@pytest.mark.parametrize("strategy", ["fsdp", "zero2", "zero3_offload"])
def test_one_rank_may_use_any_strategy(base, alone, strategy):
    """Offloading is of use on one GPU, too."""
    report = probed(base, strategy, 1)["lora"]
    assert_sound(report)
    assert report["norms"] == pytest.approx(alone["lora"]["norms"], rel=1e-4)
