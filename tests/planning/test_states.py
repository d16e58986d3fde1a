"""Weights, gradients and optimizer state by arithmetic are those of a model that was really trained."""

from itertools import chain

import pytest
import torch
from planning.simulated import forward, model_of, setup_of

from mftrun.distributed.fsdp import Fsdp
from mftrun.distributed.replicated import Ddp, Single
from mftrun.distributed.zero import Zero
from mftrun.jobs.described import layout_of
from mftrun.models.adapters import Lora
from mftrun.models.pretrained import Pretrained
from mftrun.models.quantization import FourBit
from mftrun.planning import states
from mftrun.planning.setup import LAYOUTS
from mftrun.planning.skeleton import measure
from mftrun.training.optimizers import AdamW

SIZES = {
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 64,
}


def nbytes(tensors):
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def trained(model, setup):
    """Bytes of gradients and of optimizer state after a step."""
    optimizer = AdamW().build(model)
    forward(model, setup).sum().backward()
    optimizer.step()
    states = chain.from_iterable(state.values() for state in optimizer.state.values())
    gradients = nbytes(p.grad for p in model.parameters())
    return gradients, nbytes(one for one in states if torch.is_tensor(one) and one.ndim)


def constants(model):
    """What belongs to packed weights: scales of blocks, and scales of those."""
    found = [getattr(p, "quant_state", None) for p in model.parameters()]
    kept = [(one.absmax, one.state2.absmax) for one in found if one is not None]
    return nbytes(chain.from_iterable(kept))


@pytest.mark.parametrize("half", [True, False], ids=["bf16", "fp32"])
@pytest.mark.parametrize("lora", [None, 0.05], ids=["full", "lora"])
def test_states_of_a_trained_model(lora, half):
    dtype = torch.bfloat16 if half and lora is not None else torch.float32
    model = model_of("llama", SIZES, lora, dtype, device="cpu")
    setup, size = setup_of(1, 32, half=half, lora=lora), measure(model)
    gradients, moments = trained(model, setup)
    assert states.weights(size, setup) == nbytes(model.parameters())
    assert states.gradients(size, setup) == gradients
    assert states.optimizer(size, setup) == moments


def test_states_of_a_quantised_model(tmp_path):
    pytest.importorskip("bitsandbytes")
    bare = model_of("llama", SIZES, device="cpu").to(torch.bfloat16)
    size = measure(Lora(r=16).apply(model_of("llama", SIZES)))
    bare.save_pretrained(tmp_path)
    bits = FourBit()
    base = Pretrained(str(tmp_path)).load(range(256), torch.bfloat16, bits.config())
    model = Lora(r=16).apply(base)
    setup = setup_of(1, 32, half=True, lora=0.05, quantized=bits.bytes_per_weight)
    gradients, moments = trained(model, setup)
    real = nbytes(model.parameters()) + constants(model)
    assert states.weights(size, setup) == pytest.approx(real, rel=0.01)
    assert states.gradients(size, setup) == gradients
    assert states.optimizer(size, setup) == moments


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("single", Single()),
        ("ddp", Ddp()),
        ("fsdp", Fsdp()),
        ("zero1", Zero(stage=1)),
        ("zero2", Zero(stage=2)),
        ("zero3", Zero(stage=3)),
        ("zero2_offload", Zero(stage=2, offload_optimizer=True)),
        ("zero3_offload", Zero(stage=3, offload_optimizer=True, offload_weights=True)),
    ],
)
def test_layouts_are_those_of_the_strategies(name, strategy):
    assert layout_of(strategy, ranks=1 if name == "single" else 8) == LAYOUTS[name]
