"""Estimated peaks are those that a GPU measures."""

import gc

import pytest
import torch
from planning.simulated import QWEN_1_5B, model_of

from mftrun.models.heads import head_for
from mftrun.models.recompute import recompute_activations
from mftrun.models.with_nll import ModelWithNll
from mftrun.planning.estimate import estimate
from mftrun.planning.setup import Setup
from mftrun.planning.skeleton import measure
from mftrun.training.optimizers import AdamW


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("lora", [None, 0.05], ids=["full", "lora"])
def test_peak_is_that_of_the_allocator(lora, checkpointing):
    sizes = {**QWEN_1_5B, "num_hidden_layers": 8}
    setup = Setup(2, 1, 4096, True, 4 if lora is None else 2, checkpointing=checkpointing)
    dtype = torch.float32 if lora is None else torch.bfloat16
    before = _settled()
    model = model_of("qwen2", sizes, lora, dtype, device="cuda")
    measured = _peak(model, setup) - before
    assert estimate(measure(model), setup).allocated == pytest.approx(measured, rel=0.15)


def _settled():
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()


def _peak(model, setup):
    if setup.checkpointing:
        recompute_activations(model)
    with_nll = ModelWithNll(model, head_for(model, "auto", torch.bfloat16).head)
    optimizer = AdamW().build(with_nll)
    for step in range(2):
        if step == 1:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(setup.micro_batches):
            _micro_batch(with_nll, setup).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cuda.max_memory_allocated()


def _micro_batch(with_nll, setup):
    ids = torch.randint(1000, (1, setup.length), device="cuda")
    positions = torch.arange(setup.length, device="cuda")[None] % (setup.length // 2)
    predict = torch.arange(setup.tokens - 1, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        return with_nll(ids, positions, predict, ids.flatten()[1:]).nll
