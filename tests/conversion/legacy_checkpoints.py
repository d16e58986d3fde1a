"""Tiny random checkpoints of the legacy families, with their names, fused shapes and tokenizer files."""

import json
import shutil
from pathlib import Path

import legacy_arithmetic as reference
import torch
from safetensors.torch import save_file

DATA = Path(__file__).parent / "data"
HIDDEN, INNER, HEADS, LAYERS, VOCAB = 32, 40, 4, 2, 640

_LLAMA = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCAB,
    "torch_dtype": "float32",
}
_QWEN = {
    "model_type": "qwen",
    "architectures": ["QWenLMHeadModel"],
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * INNER,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "kv_channels": HIDDEN // HEADS,
    "layer_norm_epsilon": 1e-6,
    "rotary_emb_base": 10000,
    "seq_length": 64,
    "max_position_embeddings": 256,
    "no_bias": True,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "vocab_size": VOCAB,
}
_CHATGLM = {
    "model_type": "chatglm",
    "_name_or_path": "THUDM/chatglm3-6b",
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "ffn_hidden_size": INNER,
    "hidden_dropout": 0.0,
    "hidden_size": HIDDEN,
    "kv_channels": HIDDEN // HEADS,
    "layernorm_epsilon": 1e-5,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": HEADS,
    "num_layers": LAYERS,
    "original_rope": True,
    "padded_vocab_size": VOCAB,
    "post_layer_norm": True,
    "rmsnorm": True,
    "seq_length": 64,
    "tie_word_embeddings": False,
}
_BAICHUAN = {**_LLAMA, "model_type": "baichuan", "architectures": ["BaichuanForCausalLM"]}
_AQUILA = {**_LLAMA, "model_type": "aquila", "num_key_value_heads": 2}
_INTERNLM2 = {**_LLAMA, "model_type": "internlm2", "num_key_value_heads": 2, "bias": False, "rope_theta": 1e6}

CONFIGS = {
    "qwen": _QWEN,
    "qwen_narrow_heads": {**_QWEN, "kv_channels": 4},
    "baichuan2": _BAICHUAN,
    "baichuan1": {**_BAICHUAN, "architectures": ["BaiChuanForCausalLM"]},
    "chatglm2": {**_CHATGLM, "_name_or_path": "THUDM/chatglm2-6b"},
    "chatglm2_32k": {**_CHATGLM, "_name_or_path": "THUDM/chatglm2-6b-32k", "rope_ratio": 4},
    "chatglm3": _CHATGLM,
    "chatglm3_32k": {**_CHATGLM, "_name_or_path": "THUDM/chatglm3-6b-32k", "rope_ratio": 4},
    "codegeex2": {**_CHATGLM, "_name_or_path": "codegeex2-6b", "add_qkv_bias": False},
    "aquila2": _AQUILA,
    "aquila2_stretched": {**_AQUILA, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "internlm2": _INTERNLM2,
    "internlm2_long": {
        **_INTERNLM2,
        "bias": True,
        "max_position_embeddings": 12,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
    },
}
REFERENCES = {
    "qwen": reference.qwen,
    "baichuan": reference.baichuan,
    "chatglm": reference.chatglm,
    "aquila": reference.aquila,
    "internlm2": reference.internlm2,
}


def shapes(c):
    """Names and shapes of the legacy tensors."""
    head = HIDDEN // HEADS
    if c["model_type"] == "qwen":
        width = HEADS * c["kv_channels"]
        layer = {
            "ln_1.weight": (HIDDEN,),
            "attn.c_attn.weight": (3 * width, HIDDEN),
            "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (HIDDEN, width),
            "ln_2.weight": (HIDDEN,),
            "mlp.w1.weight": (INNER, HIDDEN),
            "mlp.w2.weight": (INNER, HIDDEN),
            "mlp.c_proj.weight": (HIDDEN, INNER),
        }
        names = ("transformer.h.{}.", "transformer.wte.weight", "transformer.ln_f.weight", "lm_head.weight")
    elif c["model_type"] == "chatglm":
        fused = (HEADS + 2 * c["multi_query_group_num"]) * head
        layer = {
            "input_layernorm.weight": (HIDDEN,),
            "self_attention.query_key_value.weight": (fused, HIDDEN),
            "self_attention.dense.weight": (HIDDEN, HIDDEN),
            "post_attention_layernorm.weight": (HIDDEN,),
            "mlp.dense_h_to_4h.weight": (2 * INNER, HIDDEN),
            "mlp.dense_4h_to_h.weight": (HIDDEN, INNER),
        }
        if c["add_qkv_bias"]:
            layer["self_attention.query_key_value.bias"] = (fused,)
        names = (
            "transformer.encoder.layers.{}.",
            "transformer.embedding.word_embeddings.weight",
            "transformer.encoder.final_layernorm.weight",
            "transformer.output_layer.weight",
        )
    elif c["model_type"] == "internlm2":
        fused = (HEADS + 2 * c["num_key_value_heads"]) * head
        layer = {
            "attention_norm.weight": (HIDDEN,),
            "attention.wqkv.weight": (fused, HIDDEN),
            "attention.wo.weight": (HIDDEN, HIDDEN),
            "ffn_norm.weight": (HIDDEN,),
            "feed_forward.w1.weight": (INNER, HIDDEN),
            "feed_forward.w3.weight": (INNER, HIDDEN),
            "feed_forward.w2.weight": (HIDDEN, INNER),
        }
        if c["bias"]:
            layer |= {"attention.wqkv.bias": (fused,), "attention.wo.bias": (HIDDEN,)}
        names = ("model.layers.{}.", "model.tok_embeddings.weight", "model.norm.weight", "output.weight")
    else:
        keys = c.get("num_key_value_heads", HEADS) * head
        packed = {"self_attn.W_pack.weight": (3 * HIDDEN, HIDDEN)}
        sizes = {"q": HIDDEN, "k": keys, "v": keys}
        apart = {f"self_attn.{n}_proj.weight": (size, HIDDEN) for n, size in sizes.items()}
        layer = {
            "input_layernorm.weight": (HIDDEN,),
            **(packed if c["model_type"] == "baichuan" else apart),
            "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            "post_attention_layernorm.weight": (HIDDEN,),
            "mlp.gate_proj.weight": (INNER, HIDDEN),
            "mlp.up_proj.weight": (INNER, HIDDEN),
            "mlp.down_proj.weight": (HIDDEN, INNER),
        }
        names = ("model.layers.{}.", "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    outside = {names[1]: (VOCAB, HIDDEN), names[2]: (HIDDEN,), names[3]: (VOCAB, HIDDEN)}
    layers = {names[0].format(n) + name: shape for n in range(LAYERS) for name, shape in layer.items()}
    return outside | layers


def tensors(c, seed=0):
    """Random weights, large enough for attention and angles to matter."""
    torch.manual_seed(seed)
    return {
        name: 1 + 0.2 * torch.randn(shape) if "norm" in name or "ln_" in name else 0.3 * torch.randn(shape)
        for name, shape in shapes(c).items()
    }


def write(folder, c, weights, form="safetensors", shards=1):
    """A legacy checkpoint: config, weights in ``shards`` files, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(c))
    names, save = _files(form, shards)
    places = {name: names[number * shards // len(weights)] for number, name in enumerate(weights)}
    for file in names:
        save({name: weights[name] for name, place in places.items() if place == file}, folder / file)
    if shards > 1:
        stem = "model.safetensors" if form == "safetensors" else "pytorch_model.bin"
        (folder / f"{stem}.index.json").write_text(json.dumps({"weight_map": places}))
    write_tokenizer(folder, c["model_type"])
    return folder


def _files(form, shards):
    stem, ending = ("model", "safetensors") if form == "safetensors" else ("pytorch_model", "bin")
    numbered = [f"{stem}-{number + 1:05d}-of-{shards:05d}.{ending}" for number in range(shards)]
    names = numbered if shards > 1 else [f"{stem}.{ending}"]
    old = {"_use_new_zipfile_serialization": form != "old bin"}
    return names, save_file if form == "safetensors" else lambda part, file: torch.save(part, file, **old)


def write_tokenizer(folder, model_type):
    if model_type == "qwen":
        shutil.copy(DATA / "qwen.tiktoken", folder)
    elif model_type == "aquila":
        letters = [
            chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))
        ]
        vocab = {token: number for number, token in enumerate([*letters, "Ġt", "he", "Ġthe", "</s>"])}
        (folder / "vocab.json").write_text(json.dumps(vocab))
        (folder / "merges.txt").write_text("#version: 0.2\nĠ t\nh e\nĠt he\n")
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    else:
        kind = "bpe_prefix" if model_type == "chatglm" else "bpe_plain"
        shutil.copy(DATA / f"{kind}.model", folder / "tokenizer.model")
    if model_type == "internlm2":  # the chat models give names to entries that were left free
        added = {"518": {"content": "<|im_start|>"}, "519": {"content": "<|im_end|>"}}
        (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
