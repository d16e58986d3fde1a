"""Estimated peaks are those of a step on fake tensors, at real sizes; and well-known sums come out."""

from dataclasses import replace

import pytest
import torch
from planning.simulated import LLAMA_8B, QWEN_1_5B, SMALL, model_of, setup_of, simulated_peak

from mftrun.models import heads
from mftrun.models.quantization import FourBit
from mftrun.planning import head, states
from mftrun.planning.estimate import GIB, estimate
from mftrun.planning.setup import LAYOUTS, Setup
from mftrun.planning.skeleton import measure

SHAPES = {
    "qwen2": {**QWEN_1_5B, "num_hidden_layers": 10},
    "llama": {**LLAMA_8B, "num_hidden_layers": 4},
}


WIDE_HEAD = {
    **SMALL,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "head_dim": 128,
    "num_hidden_layers": 6,
    "vocab_size": 151936,
}


@pytest.mark.parametrize(
    ("family", "lora", "checkpointing", "micro_batches"),
    [
        ("qwen2", None, False, 1),
        ("qwen2", None, False, 2),
        ("qwen2", None, True, 1),
        ("qwen2", None, True, 2),
        ("qwen2", 0.05, False, 1),
        ("qwen2", 0.05, True, 1),
        ("llama", None, False, 1),
        ("llama", None, True, 1),
        ("llama", 0.0, False, 1),
        ("llama", 0.05, True, 2),
    ],
)
def test_peak_in_bf16_is_that_of_a_simulated_step(family, lora, checkpointing, micro_batches):
    dtype = torch.float32 if lora is None else torch.bfloat16
    model = model_of(family, SHAPES[family], lora, dtype)
    setup = setup_of(1, 4096, half=True, lora=lora, micro_batches=micro_batches, checkpointing=checkpointing)
    assert_close(estimate(measure(model), setup).allocated, simulated_peak(model, setup))


@pytest.mark.parametrize("lora", [None, 0.0], ids=["full", "lora"])
def test_peak_in_fp32_is_that_of_a_simulated_step(lora):
    model = model_of("qwen2", {**QWEN_1_5B, "num_hidden_layers": 6}, lora)
    setup = setup_of(2, 2048, half=False, lora=lora)
    assert_close(estimate(measure(model), setup).allocated, simulated_peak(model, setup))


def assert_close(estimated, real):
    assert estimated == pytest.approx(real, rel=0.06)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("lora", [None, 0.05], ids=["full", "lora"])
def test_peak_of_a_small_model_is_that_of_its_output_head(lora, tied):
    sizes = {**WIDE_HEAD, "num_hidden_layers": 1, "tie_word_embeddings": tied}
    model = model_of("llama", sizes, lora, torch.float32 if lora is None else torch.bfloat16)
    setup = setup_of(1, 512, half=True, lora=lora)
    found = estimate(measure(model), setup)
    assert found.device["output head"] > found.device["activations"]
    assert found.allocated == pytest.approx(simulated_peak(model, setup), rel=0.01)


def test_peak_of_short_rows_is_that_of_a_tied_embeddings_two_gradients():
    model = model_of("llama", {**WIDE_HEAD, "intermediate_size": 4096, "tie_word_embeddings": True})
    setup = setup_of(1, 64, half=True, lora=None, checkpointing=True)
    assert estimate(measure(model), setup).allocated == pytest.approx(simulated_peak(model, setup), rel=0.02)


@pytest.fixture(scope="module")
def llama():
    return measure(model_of("llama", LLAMA_8B))


FULL = Setup(global_batch=8, micro_batch=1, row_length=2048, half=True, loaded=4)


def states_of(model, setup):
    return states.weights(model, setup) + states.gradients(model, setup) + states.optimizer(model, setup)


def test_adamw_takes_16_bytes_per_trained_parameter(llama):
    assert llama.whole.total == 8_030_261_248  # as published
    assert states_of(llama, FULL) == 16 * llama.whole.total


@pytest.mark.parametrize(
    ("name", "each", "divided"),
    [("ddp", 16, 0), ("fsdp", 0, 16), ("zero1", 6, 12), ("zero2", 2, 16), ("zero3", 0, 18)],
)
def test_strategies_divide_what_they_say(llama, name, each, divided):
    setup = replace(FULL, ranks=8, ranks_per_host=8, layout=LAYOUTS[name])
    assert states_of(llama, setup) == pytest.approx((each + divided / 8) * llama.whole.total, rel=1e-6)


def test_offloading_moves_states_to_the_host(llama):
    setup = replace(FULL, layout=LAYOUTS["zero3_offload"])
    assert states_of(llama, setup) == 0
    assert states.host(llama, setup) == (2 + 4 + 12) * llama.whole.total


def test_four_bits_take_half_a_byte_and_their_constants(llama):
    adapted = measure(model_of("llama", LLAMA_8B, 0.05, torch.bfloat16))
    setup = replace(FULL, loaded=2, quantized=FourBit().bytes_per_weight)
    linear = 6_979_321_856  # 32 layers of linear weights; embeddings and head stay in bf16
    assert adapted.whole.linear == linear
    expected = linear * 0.5159 + (llama.whole.total - linear) * 2 + adapted.whole.trained * 4
    assert states.weights(adapted, setup) == pytest.approx(expected, rel=1e-4)
    assert 5.4 < states.weights(adapted, setup) / GIB < 5.6


def test_gathered_weights_are_not_more_than_all_of_them(llama):
    sharded = replace(FULL, ranks=8, layout=LAYOUTS["fsdp"])
    assert states.gathered(llama, FULL) == 0
    assert 0 < states.gathered(llama, sharded) < 4 * GIB
    assert states.gathered(llama, replace(sharded, layout=LAYOUTS["zero3"])) <= 2 * llama.whole.total


def test_more_ranks_and_smaller_batches_never_need_more(llama):
    sharded = [
        estimate(llama, replace(FULL, ranks=ranks, layout=LAYOUTS["fsdp"])).needed for ranks in (2, 4, 8, 16)
    ]
    batches = [estimate(llama, replace(FULL, micro_batch=size)).needed for size in (8, 4, 2, 1)]
    assert sharded == sorted(sharded, reverse=True)
    assert batches == sorted(batches, reverse=True)


def test_a_chunk_of_logits_is_as_large_as_the_head_makes_it():
    assert head.MAX_LOGITS == heads._MAX_LOGITS
