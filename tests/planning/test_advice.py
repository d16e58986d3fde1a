"""What would make a run fit, and which strategy `distributed=auto` takes."""

from dataclasses import replace

import pytest
import torch
from planning.simulated import LLAMA_8B, model_of

from mftrun.planning.advice import Option, advice
from mftrun.planning.choosing import choose, needs_of
from mftrun.planning.estimate import GIB, estimate
from mftrun.planning.setup import LAYOUTS, Setup
from mftrun.planning.skeleton import measure

RUN = Setup(global_batch=64, micro_batch=4, row_length=4096, half=True, loaded=4)


@pytest.fixture(scope="module")
def full():
    return measure(model_of("llama", LLAMA_8B))


@pytest.fixture(scope="module")
def lora():
    return measure(model_of("llama", LLAMA_8B, 0.05, torch.bfloat16))


def changes(*arguments):
    return [option.change for option in advice(*arguments)]


def test_what_is_advised_fits(full, lora):
    adapter = Option("peft=lora", "", lora, replace(RUN, loaded=2, checkpointing=True))
    found = advice(full, replace(RUN, checkpointing=True), [adapter], 100 * GIB, None)
    assert found
    assert all(option.estimate.needed <= 100 * GIB for option in found)


def test_the_largest_batch_that_fits_comes_first(lora):
    setup = replace(RUN, loaded=2, micro_batch=8)
    room = estimate(lora, replace(setup, micro_batch=2)).needed
    found = changes(lora, setup, [], room, None)
    assert found[:2] == ["train.micro_batch_size=2", "train.gradient_checkpointing=true"]
    assert "train.micro_batch_size=1" not in found


def test_more_gpus_come_with_a_strategy_that_divides(full):
    lean = replace(RUN, micro_batch=1, checkpointing=True)
    assert "distributed=fsdp on 4 GPUs" in changes(full, lean, [], 60 * GIB, None)
    sharded = replace(lean, ranks=2, layout=LAYOUTS["zero3"])
    assert any(change.startswith("on ") for change in changes(full, sharded, [], 50 * GIB, None))


def test_where_no_single_option_helps_several_do(full):
    eight = replace(RUN, ranks=8, ranks_per_host=8, micro_batch=8, layout=LAYOUTS["ddp"])
    found = changes(full, eight, [], 40 * GIB, None)
    assert found[0] == "train.gradient_checkpointing=true train.micro_batch_size=1 distributed=fsdp"


def test_offloading_needs_memory_of_the_host(full):
    lean = replace(RUN, micro_batch=1, checkpointing=True)
    assert "distributed=zero3_offload" in changes(full, lean, [], 80 * GIB, None)
    assert "distributed=zero3_offload" not in changes(full, lean, [], 80 * GIB, 64 * GIB)


def test_nothing_is_advised_where_nothing_helps(full):
    assert changes(full, RUN, [], GIB, None) == []


@pytest.mark.parametrize(
    ("devices", "memory", "strategy"),
    [(0, 0, "ddp"), (1, 180, "single"), (8, 180, "ddp"), (8, 80, "fsdp"), (1, 100, "zero2_offload")],
)
def test_auto_takes_the_simplest_that_fits(full, devices, memory, strategy):
    lean = replace(RUN, micro_batch=1, checkpointing=True, ranks=max(devices, 1))
    choice = choose(devices, memory * GIB, needs_of(full, lean))
    assert choice.strategy == strategy
    if devices:
        assert f"{memory}.0 GiB" in choice.reason


def test_auto_names_what_was_too_much(full):
    lean = replace(RUN, micro_batch=1, checkpointing=True, ranks=8)
    assert "too much: ddp 1" in choose(8, 80 * GIB, needs_of(full, lean)).reason


def test_auto_divides_8_bit_weights_with_zero(full):
    lean = replace(RUN, micro_batch=1, checkpointing=True, ranks=8)
    choice = choose(8, 80 * GIB, needs_of(full, lean), divisible=False)
    assert choice.strategy == "zero3"
    assert "fsdp cannot" in choice.reason


def test_auto_says_when_nothing_fits(full):
    choice = choose(2, GIB, needs_of(full, replace(RUN, ranks=2)))
    assert choice.strategy == "fsdp"
    assert "job=plan" in choice.reason
