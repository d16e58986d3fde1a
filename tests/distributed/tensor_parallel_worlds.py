"""One step of tiny models of several families by ranks that divide their matrices, and what is saved."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mftrun.distributed import TensorParallel, leave_group
from mftrun.models.pretrained import Pretrained
from mftrun.models.tokenizers import train_bpe
from mftrun.models.with_nll import ModelWithNll
from mftrun.training import tensors
from mftrun.training.optimizers import AdamW

_SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "router_aux_loss_coef": 0.5}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
# Whose weights are not simply divided: norms of each head or of all heads, packed matrices, experts, latents.
FAMILIES = {
    "qwen3": _SMALL,
    "gemma3_text": {**_SMALL, "query_pre_attn_scalar": 8, "sliding_window": 5},
    "olmo2": _SMALL,
    "phi3": _SMALL,
    "qwen3_moe": {**_SMALL, **_EXPERTS, "num_experts": 4},
    "deepseek_v3": {**_SMALL, **_EXPERTS, **_LATENT},
}
MICRO_BATCHES = 3


def write(folder):
    """A checkpoint of each."""
    tokenizer = train_bpe(["def f(x): return x\n"] * 20, 280)
    for name, settings in FAMILIES.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **settings))
        with torch.no_grad():
            for parameter in model.parameters():  # weights so large that every part shows in the loss
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def steps(context, given):
    """For each family: its loss, norm and gradients, and whether it came back from what it had saved."""
    strategy = TensorParallel(num_processes=context.world_size)
    ranks = strategy.join("fp32")
    found = {name: _step(strategy, ranks, Path(given["bases"]) / name, given["out"]) for name in FAMILIES}
    leave_group()
    return found


def _step(strategy, ranks, base, out):
    engine = _engine(strategy, ranks, base)
    loss = sum(_micro_batch(engine, seed) for seed in range(MICRO_BATCHES))
    gradients = {name: _whole(p.grad).clone() for name, p in engine.bare.named_parameters()}
    norm = engine.step(0.01)
    folder = Path(out) / base.name / tensors.FOLDER
    _save(engine, folder)
    again = _engine(strategy, ranks, base)
    tensors.read_tensors(again, folder)
    before, after = _state(engine), _state(again)
    model = {f"model.{name}": tensor for name, tensor in engine.gathered(lambda name: True)}
    return {
        "loss": loss,
        "norm": norm,
        "gradients": gradients,
        "model": model,
        "lost": [name for name, value in before.items() if not torch.equal(value, after[name])],
    }


def _engine(strategy, ranks, base):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = strategy.load(Pretrained(str(base)), tokenizer, torch.float32, ranks)
    options = {"precision": "fp32", "max_grad_norm": 0.5}
    return strategy.engine(ranks, ModelWithNll(model.train()), AdamW(lr=0.01), **options)


def _micro_batch(engine, seed):
    ids = torch.randint(3, 300, (2, 17), generator=torch.Generator().manual_seed(seed))
    flat = torch.arange(34).view(2, 17)
    positions = torch.arange(17).expand(2, 17).contiguous()
    output = engine.model(ids, positions, flat[:, :-1].flatten(), ids[:, 1:].flatten())
    share = output.nll.mean()
    if output.router is not None:
        share = share + output.router.share(output.router.choices.double(), 34).to(share.dtype)
    with engine.micro_step(is_last=seed == MICRO_BATCHES - 1):
        engine.backward(share)
    return share.item()


def _save(engine, folder):
    writing = tensors.Writing(engine, folder)
    written = tensors.gathered(writing.wait())
    if written:
        writing.finish(written)
    engine.ranks.wait()


def _state(engine):
    """What this rank holds."""
    return {name: value.detach().as_subclass(torch.Tensor) for name, value in _local(engine).items()}


def _local(engine):
    return {name: getattr(value, "_local_tensor", value) for name, value in engine.state().items()}


def _whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
