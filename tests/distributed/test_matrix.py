"""Law: what a run computes does not depend on how its ranks share the model, in any supported combination."""

import matrix
import pytest
import torch
from matrix import ADAPTERS, SAVED, World, checkpoint, curves, plain_model, saved_adapter, under
from runs import assert_same_tensors, checkpoint_tensors, overrides_for, plain_losses, train

from mftrun.distributed import support

pytest.importorskip("deepspeed")
pytest.importorskip("bitsandbytes")

# fp32; weights of 4 bit are multiplied in bf16, whose rounding depends on how rows are split.
EXACT, PACKED, HALF = 1e-5, 1e-3, 2e-2
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
CELLS = [(adapter, strategy) for adapter in ("none", "lora", "qlora") for strategy in STRATEGIES]
DIVIDED = [("none", "tp")]
OFFLOADED = [("none", "zero2_offload"), ("qlora", "zero2_offload"), ("lora", "zero3_offload")]
# Less travelled: adapters made from weights, memory savers, and objectives that look into the step.
OTHERS = {
    "dora-fsdp": ("fsdp", ADAPTERS["dora"]),
    "pissa-zero3": ("zero3", ADAPTERS["pissa"]),
    "qdora-fsdp": ("fsdp", ADAPTERS["qdora"]),
    "qlora8-zero2": ("zero2", ADAPTERS["qlora8"]),
    "recomputed-fsdp": ("fsdp", [*ADAPTERS["qlora"], "train.gradient_checkpointing=true"]),
    "recomputed-zero3": ("zero3", [*ADAPTERS["none"], "train.gradient_checkpointing=true"]),
    "gradnorm-fsdp": ("fsdp", ["loss=gradnorm", "loss.weighting.watch=train"]),
    "gradnorm-zero3": ("zero3", ["loss=gradnorm", "loss.weighting.watch=train"]),
    "statistics-fsdp": ("fsdp", ["loss=focal", "loss.token_loss.level=task"]),
    "statistics-zero3": ("zero3", ["loss=focal", "loss.token_loss.level=task"]),
    "half-fsdp": ("fsdp", [*ADAPTERS["lora"], "train.precision=bf16", "peft.modules_to_save=[lm_head]"]),
    "half-zero3": ("zero3", [*ADAPTERS["none"], "train.precision=bf16"]),
    "half-tp": ("tp", [*ADAPTERS["none"], "train.precision=bf16"]),
    "whole-layers-fsdp": ("fsdp", [*ADAPTERS["lora"], "peft.modules_to_save=[embed_tokens]"]),
    "whole-layers-zero3": ("zero3", [*ADAPTERS["lora"], "peft.modules_to_save=[embed_tokens]"]),
}


@pytest.fixture(scope="module")
def world(tasks_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    wide = "model.hidden_size=64"  # a block of 4-bit weights
    train(folder / "made", *overrides_for(tasks_dir, "train.max_steps=1", wide))
    return World(folder, folder / "made" / "model", tasks_dir)


def tolerance(overrides):
    if "train.precision=bf16" in overrides:
        return HALF
    return PACKED if any(one.startswith("peft=q") for one in overrides) else EXACT


def assert_same_curves(found, expected, close):
    ours, theirs = curves(found), curves(expected)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        # Norms are reported before clipping; they are no losses, and as large as they happen to be.
        limit = {"rel": 10 * close} if "grad_norm" in name else {"abs": close}
        assert ours[name] == pytest.approx(value, **limit), name


@pytest.mark.parametrize(("adapter", "strategy"), [*CELLS, *DIVIDED, *OFFLOADED])
def test_a_cell(world, tmp_path, adapter, strategy):
    """Same curve as one process; resumed in fresh processes the same run; saved whole for plain libraries."""
    chosen, ranks = ADAPTERS[adapter], under(strategy)
    expected = world.reference(*chosen)
    run = world.run(tmp_path / "run", *chosen, *ranks)
    assert_same_curves(run, expected, tolerance(chosen))
    assert all(value > 0.3 for name, value in curves(run).items() if "grad_norm" in name), "clipping is idle"

    resumed = world.run(tmp_path / "resumed", *chosen, *ranks, f"resume={checkpoint(run, SAVED)}")
    assert curves(resumed, SAVED + 1).items() <= curves(run).items()
    assert_same_tensors(checkpoint(resumed), checkpoint(run))

    first, last = (checkpoint_tensors(checkpoint(run, step)) for step in (SAVED, matrix.STEPS))
    still = [name for name in last if name.startswith("model.") and torch.equal(first[name], last[name])]
    assert not still, "these are trained, and stood still"

    if adapter != "none":
        assert saved_adapter(run) == str(world.base)
    told = {name: value for name, value in curves(run).items() if name.startswith("valid/loss/")}
    assert plain_losses(plain_model(run, adapter), run) == pytest.approx(told, abs=tolerance(chosen))


@pytest.mark.parametrize("name", OTHERS)
def test_what_else_is_trained_is_the_same(world, tmp_path, name):
    strategy, chosen = OTHERS[name]
    run = world.run(tmp_path, *chosen, *under(strategy))
    assert_same_curves(run, world.reference(*chosen), tolerance(chosen))


def test_every_kind_of_adapter_is_run():
    run = {adapter for adapter, _ in CELLS} | {name.partition("-")[0] for name in OTHERS}
    assert {kind.option for kind in support.KINDS} <= run
