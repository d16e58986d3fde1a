"""The arithmetic of the legacy architectures, written from their papers on the legacy tensors, in 64 bit.

A layer is ``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``. The families differ in how their
tensors hold queries, keys and values, in the angles, in the order of the gate, and in the head.
"""

import torch
from torch.nn.functional import cross_entropy, silu


def rms_norm(x, weight, eps):
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def angles(length, dim, base, stretch=1.0):
    """Position times frequency, for each of the dim / 2 planes."""
    return torch.outer(
        torch.arange(length).double() / stretch, base ** (-torch.arange(0, dim, 2).double() / dim)
    )


def halves(x, turn):
    """RoFormer's rotation of the planes (i, i + dim / 2), as GPT-NeoX has it; x: (length, heads, dim)."""
    first, second = x.chunk(2, -1)
    turned = torch.polar(torch.ones_like(turn), turn)[:, None] * torch.complex(first, second)
    return torch.cat([turned.real, turned.imag], -1)


def neighbours(x, turn):
    """Rotation of the planes (2i, 2i + 1) of the first half of each head, as GLM has it."""
    part = x.shape[-1] // 2
    pairs = torch.view_as_complex(x[..., :part].reshape(*x.shape[:2], -1, 2).contiguous())
    turned = torch.view_as_real(torch.polar(torch.ones_like(turn), turn)[:, None] * pairs).flatten(-2)
    return torch.cat([turned, x[..., part:]], -1)


def attend(q, k, v):
    """Causal attention; q: (length, heads, dim), k and v with fewer heads, for several queries each."""
    length, heads, dim = q.shape
    k, v = (t.repeat_interleave(heads // t.shape[1], 1) for t in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) / dim**0.5
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)


def nll(logits, ids):
    return cross_entropy(logits[:-1], ids[1:], reduction="none")


def qwen(c, w, ids):
    """w2 is the gate and w1 goes up."""
    x, heads, length = w["transformer.wte.weight"][ids], c["num_attention_heads"], len(ids)
    turn = angles(length, c["kv_channels"], c["rotary_emb_base"])
    for n in range(c["num_hidden_layers"]):
        at, eps = f"transformer.h.{n}.", c["layer_norm_epsilon"]
        h = rms_norm(x, w[at + "ln_1.weight"], eps)
        mixed = h @ w[at + "attn.c_attn.weight"].T + w[at + "attn.c_attn.bias"]
        q, k, v = (part.reshape(length, heads, -1) for part in mixed.chunk(3, -1))
        x = x + attend(halves(q, turn), halves(k, turn), v) @ w[at + "attn.c_proj.weight"].T
        h = rms_norm(x, w[at + "ln_2.weight"], eps)
        inner = (h @ w[at + "mlp.w1.weight"].T) * silu(h @ w[at + "mlp.w2.weight"].T)
        x = x + inner @ w[at + "mlp.c_proj.weight"].T
    x = rms_norm(x, w["transformer.ln_f.weight"], c["layer_norm_epsilon"])
    return nll(x @ w["lm_head.weight"].T, ids)


def llama_like(c, w, ids, attention, gate, up, down, norms, embedding, head):
    """Baichuan, Aquila and InternLM2; ``attention`` gives queries, keys and values of a layer."""
    x, eps, length = w[embedding][ids], c["rms_norm_eps"], len(ids)
    dim, scaling = c["hidden_size"] // c["num_attention_heads"], c.get("rope_scaling") or {"type": None}
    base, stretch = c.get("rope_theta", 10000.0), 1.0
    if scaling["type"] == "linear":
        stretch = scaling["factor"]
    if scaling["type"] == "dynamic" and length > c["max_position_embeddings"]:
        grown = scaling["factor"] * length / c["max_position_embeddings"] - (scaling["factor"] - 1)
        base *= grown ** (dim / (dim - 2))
    turn = angles(length, dim, base, stretch)
    for n in range(c["num_hidden_layers"]):
        at = f"model.layers.{n}."
        q, k, v, out = attention(rms_norm(x, w[at + norms[0]], eps), at)
        mixed = attend(halves(q, turn), halves(k, turn), v)
        x = x + mixed @ w[at + out].T + w.get(at + out.replace("weight", "bias"), 0)
        h = rms_norm(x, w[at + norms[1]], eps)
        x = x + (silu(h @ w[at + gate].T) * (h @ w[at + up].T)) @ w[at + down].T
    return nll(rms_norm(x, w["model.norm.weight"], eps) @ head.T, ids)


_LLAMA = {
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "norms": ("input_layernorm.weight", "post_attention_layernorm.weight"),
    "embedding": "model.embed_tokens.weight",
}


def baichuan(c, w, ids):
    def attention(h, at):
        packed = h @ w[at + "self_attn.W_pack.weight"].T
        parts = packed.reshape(len(ids), 3, c["num_attention_heads"], -1).unbind(1)
        return (*parts, "self_attn.o_proj.weight")

    head = w["lm_head.weight"]
    if c["architectures"] == ["BaichuanForCausalLM"]:
        head = head / head.pow(2).sum(-1, keepdim=True).sqrt()
    return llama_like(c, w, ids, attention, head=head, **_LLAMA)


def aquila(c, w, ids):
    def attention(h, at):
        heads = {"q": c["num_attention_heads"], "k": c["num_key_value_heads"], "v": c["num_key_value_heads"]}
        parts = (
            (h @ w[f"{at}self_attn.{n}_proj.weight"].T).reshape(len(ids), m, -1) for n, m in heads.items()
        )
        return (*parts, "self_attn.o_proj.weight")

    return llama_like(c, w, ids, attention, head=w["lm_head.weight"], **_LLAMA)


def internlm2(c, w, ids):
    groups = c["num_key_value_heads"]

    def attention(h, at):
        mixed = h @ w[at + "attention.wqkv.weight"].T + w.get(at + "attention.wqkv.bias", 0)
        queries = c["num_attention_heads"] // groups
        q, k, v = mixed.reshape(len(ids), groups, queries + 2, -1).split([queries, 1, 1], 2)
        return q.flatten(1, 2), k[:, :, 0], v[:, :, 0], "attention.wo.weight"

    return llama_like(
        c,
        w,
        ids,
        attention,
        gate="feed_forward.w1.weight",
        up="feed_forward.w3.weight",
        down="feed_forward.w2.weight",
        norms=("attention_norm.weight", "ffn_norm.weight"),
        embedding="model.tok_embeddings.weight",
        head=w["output.weight"],
    )


def chatglm(c, w, ids):
    """The first half of the fused matrix is the gate."""
    x, length, head = w["transformer.embedding.word_embeddings.weight"][ids], len(ids), c["kv_channels"]
    ratio, third = c.get("rope_ratio", 1), "chatglm3" in c["_name_or_path"]
    turn = angles(length, head // 2, 10000.0 * (ratio if third else 1), 1 if third else ratio)
    heads, groups = c["num_attention_heads"], c["multi_query_group_num"]
    for n in range(c["num_layers"]):
        at, eps = f"transformer.encoder.layers.{n}.", c["layernorm_epsilon"]
        h = rms_norm(x, w[at + "input_layernorm.weight"], eps)
        name = at + "self_attention.query_key_value."
        mixed = h @ w[name + "weight"].T + w.get(name + "bias", 0)
        q, k, v = mixed.reshape(length, -1, head).split([heads, groups, groups], 1)
        x = x + attend(neighbours(q, turn), neighbours(k, turn), v) @ w[at + "self_attention.dense.weight"].T
        h = rms_norm(x, w[at + "post_attention_layernorm.weight"], eps)
        gate, up = (h @ w[at + "mlp.dense_h_to_4h.weight"].T).chunk(2, -1)
        x = x + (silu(gate) * up) @ w[at + "mlp.dense_4h_to_h.weight"].T
    x = rms_norm(x, w["transformer.encoder.final_layernorm.weight"], c["layernorm_epsilon"])
    return nll(x @ w["transformer.output_layer.weight"].T, ids)
