"""What autograd saves, and what is alive at the peak of a step: reality to hold estimates against.

A step on fake tensors computes nothing and allocates nothing, but goes through every operation of the forward
and the backward pass, so that models of real sizes can be counted in seconds.
"""

import weakref
from itertools import chain

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import AutoConfig, AutoModelForCausalLM

from mftrun.models.adapters import FullFineTuning, Lora
from mftrun.models.heads import head_for
from mftrun.models.recompute import recompute_activations
from mftrun.models.with_nll import ModelWithNll
from mftrun.planning.setup import Setup

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
    "max_position_embeddings": 512,
}
QWEN_1_5B = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 8192,
    "num_hidden_layers": 28,
    "tie_word_embeddings": True,
}
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "num_hidden_layers": 32,
    "tie_word_embeddings": False,
}


def model_of(family, sizes, lora=None, dtype=torch.float32, attention="sdpa", device="meta"):
    """A causal language model, with adapters where `lora` gives their dropout."""
    config = AutoConfig.for_model(family, **sizes)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention).train()
        return FullFineTuning().apply(model) if lora is None else Lora(r=16, dropout=lora).apply(model)


def setup_of(rows, length, *, half, lora, micro_batches=1, **more):
    """The run that `step` makes, on a CPU."""
    return Setup(
        global_batch=rows * micro_batches,
        micro_batch=rows,
        row_length=length,
        half=half,
        loaded=2 if half and lora is not None else 4,
        head="chunked" if half else "fused",
        mask=4,
        **more,
    )


def forward(model, setup):
    """Losses of a micro-batch; every position but the last one predicts a target."""
    dtype = torch.bfloat16 if setup.half else torch.float32
    with_nll = ModelWithNll(model, head_for(model, "auto", dtype).head)
    ids = torch.ones(setup.rows, setup.length, dtype=torch.int64)
    positions = torch.arange(setup.length)[None].repeat(setup.rows, 1)
    if setup.shares_rows:
        positions = positions % (setup.length // 2)
    predict = torch.arange(setup.tokens - 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=setup.half):
        return with_nll(ids, positions, predict, ids.flatten()[1:]).nll


def saved_bytes(model, setup):
    """Bytes of the storages that a forward pass saves, but for parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    if setup.checkpointing:
        recompute_activations(model)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        nll = forward(model, setup)
    return sum(storage.nbytes() for storage in saved.values()), nll


class Peak(TorchDispatchMode):
    """Adds up the bytes of all living tensors."""

    def __init__(self):
        super().__init__()
        self.live, self.now, self.peak = {}, 0, 0

    def see(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self.live:
            self.live[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage._cdata)
        return tensor

    def _gone(self, key):
        self.now -= self.live.pop(key)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return tree_map_only(torch.Tensor, self.see, function(*args, **(kwargs or {})))


def simulated_peak(model, setup):
    """Bytes alive at most in the second step of a run, by a model on the meta device."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        _materialise(model)
        if setup.checkpointing:
            recompute_activations(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, fused=True)
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        peak = Peak()
        states = chain.from_iterable(state.values() for state in optimizer.state.values())
        for tensor in (*(p.data for p in model.parameters()), *states):
            peak.see(tensor)
        with peak:
            for _ in range(setup.micro_batches):
                forward(model, setup).sum().backward()
            optimizer.step()
    return peak.peak


def _materialise(model):
    """Puts fake tensors on the CPU in place of those on the meta device; shared ones stay shared."""
    made = {}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, old in list(store.items()):
                if old is not None and id(old) not in made:
                    new = torch.zeros(old.shape, dtype=old.dtype, device="cpu")
                    made[id(old)] = (
                        nn.Parameter(new, old.requires_grad) if name in module._parameters else new
                    )
                if old is not None:
                    store[name] = made[id(old)]
