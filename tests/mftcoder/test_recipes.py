"""The published recipes: their values, that they compose, and that job=plan says what they need."""

import json

import pytest

from mftrun.build import build
from mftrun.cli import Job
from mftrun.compose import compose
from mftrun.schema import check

_DECODER = {"hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": False}


def _sizes(model_type, hidden, inner, layers, heads, kv_heads, vocab, **more):
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        **_DECODER,
        **more,
    }


def _qwen(hidden, inner, layers, heads, vocab):
    return {
        "model_type": "qwen",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "kv_channels": 128,
        "layer_norm_epsilon": 1e-6,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "seq_length": 8192,
        "max_position_embeddings": 8192,
        "no_bias": True,
        "scale_attn_weights": True,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "tie_word_embeddings": False,
        "vocab_size": vocab,
    }


_NEOX = {
    "model_type": "gpt_neox",
    "hidden_size": 5120,
    "intermediate_size": 20480,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "max_position_embeddings": 4096,
    "vocab_size": 100864,
    "rotary_pct": 1.0,
    "tie_word_embeddings": False,
}
_LLAMA_1B = _sizes("llama", 2048, 5632, 22, 32, 4, 32000)
_CODEGEEX2 = {
    "model_type": "chatglm",
    "hidden_size": 4096,
    "ffn_hidden_size": 13696,
    "num_layers": 28,
    "num_attention_heads": 32,
    "kv_channels": 128,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "padded_vocab_size": 65024,
    "seq_length": 8192,
    "layernorm_epsilon": 1e-5,
    "rmsnorm": True,
    "post_layer_norm": True,
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_residual_connection_post_layernorm": False,
    "original_rope": True,
}
_STARCODER = {
    "model_type": "gpt_bigcode",
    "n_embd": 6144,
    "n_inner": 24576,
    "n_layer": 40,
    "n_head": 48,
    "n_positions": 8192,
    "multi_query": True,
    "vocab_size": 49152,
}

# Recipe → config.json of its base as published, and billions of parameters.
BASES = {
    "codefuse_deepseek_33b": (_sizes("llama", 7168, 19200, 62, 56, 8, 32256), 33.3),
    "codefuse_mixtral_8x7b": (
        _sizes("mixtral", 4096, 14336, 32, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2),
        46.7,
    ),
    "codefuse_codellama_34b": (_sizes("llama", 8192, 22016, 48, 64, 8, 32000), 33.7),
    "codefuse_starcoder2_15b": (
        {**_sizes("starcoder2", 6144, 24576, 40, 48, 4, 49152), "hidden_act": "gelu_pytorch_tanh"},
        16.0,
    ),
    "codefuse_starcoder_15b": (_STARCODER, 15.5),
    "codefuse_qwen_14b": (_qwen(5120, 27392, 40, 40, 152064), 14.2),
    "codefuse_codegeex2_6b": (_CODEGEEX2, 6.24),
    "codeqwen_competition": (_qwen(2048, 11008, 24, 16, 151936), 1.84),
    "gptneox_atorch_full": (_NEOX, 13.6),
    "gptneox_atorch_lora": (_NEOX, 13.6),
    "coba": (_LLAMA_1B, 1.1),
    "self_paced": (_LLAMA_1B, 1.1),
}
# Recipe whose experts are not quantised → GiB of its weights, as its comment says.
IN_16_BIT = {"codefuse_mixtral_8x7b": 85.4}
_QLORA = {
    "peft.r": 96,
    "peft.alpha": 32,
    "peft.dropout": 0.05,
    "peft.target_modules": "all-linear",
    "optimizer.lr": 5e-5,
    "optimizer.weight_decay": 0.1,
    "scheduler.warmup_steps": 300,
    "scheduler.min_lr": 5e-6,
    "train.epochs": 4,
    "evaluation.every": 100,
    "evaluation.early_stopping.patience": 5,
    "checkpoint.every_steps": 100,
    "checkpoint.every_epoch": True,
    "data.valid_fraction": 0.02,
    "seed": 1234,
}
_FIRST = {
    "peft.r": 32,
    "peft.alpha": 32,
    "peft.dropout": 0.05,
    "optimizer.lr": 1e-4,
    "optimizer.betas": [0.9, 0.95],
    "optimizer.weight_decay": 0.1,
    "scheduler.min_lr": 1e-5,
    "evaluation.every": 1000,
    "evaluation.early_stopping.patience": 5,
    "checkpoint.every_steps": 1000,
    "data.valid_fraction": 0.05,
    "seed": 1234,
    "template.user_prefix": "<|role_start|>human<|role_end|>",
}
_ROWS = {name: f"mftrun.data.rows.{name}" for name in ("Packing", "Padding")}
_ATORCH = {
    "optimizer.weight_decay": 0.0,
    "optimizer.betas": [0.9, 0.999],
    "train.gradient_checkpointing": True,
    "train.max_grad_norm": 1.0,
    "train.precision": "bf16",
    "train.log_every": 10,
    "checkpoint.keep_last": 2,
    "checkpoint.every_epoch": True,
    "seed": 42,
    "rows._target_": _ROWS["Padding"],
}

# Recipe → what was published, whether the file says it or a default does.
PUBLISHED = {
    "codefuse_deepseek_33b": {
        **_QLORA,
        "model.path": "deepseek-ai/deepseek-coder-33b-base",
        "peft.quantization.bits": 4,
        "train.global_batch_size": 80,
        "template.user_prefix": "<s>human\n",
    },
    "codefuse_mixtral_8x7b": {
        **_QLORA,
        "model.path": "mistralai/Mixtral-8x7B-v0.1",
        "peft.target_modules": "attention",
        "peft.experts": False,
        "train.global_batch_size": 80,
    },
    "codefuse_codellama_34b": {
        **_FIRST,
        "model.path": "codellama/CodeLlama-34b-Python-hf",
        "peft.target_modules": ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj"],
        "train.global_batch_size": 80,
        "train.epochs": 8,
        "scheduler.warmup_steps": 300,
        "rows._target_": _ROWS["Packing"],
    },
    "codefuse_starcoder2_15b": {
        **_QLORA,
        "model.path": "bigcode/starcoder2-15b",
        "train.global_batch_size": 128,
    },
    "codefuse_starcoder_15b": {
        **_FIRST,
        "model.path": "bigcode/starcoder",
        "train.global_batch_size": 80,
        "train.epochs": 8,
        "train.log_every": 50,
        "scheduler.warmup_steps": 100,
        "checkpoint.every_epoch": False,
        "rows._target_": _ROWS["Packing"],
    },
    "codefuse_qwen_14b": {
        **_FIRST,
        "model.path": "Qwen/Qwen-14B",
        "train.global_batch_size": 256,
        "train.epochs": 4,
        "scheduler.warmup_steps": 1000,
        "rows._target_": _ROWS["Padding"],
    },
    "codefuse_codegeex2_6b": {
        **_FIRST,
        "peft.quantization": None,
        "train.global_batch_size": 256,
        "train.epochs": 6,
        "scheduler.warmup_steps": 1000,
        "rows._target_": _ROWS["Packing"],
    },
    "codeqwen_competition": {
        "model.path": "Qwen/Qwen-1_8B",
        "peft.r": 96,
        "peft.alpha": 32,
        "peft.quantization": None,
        "optimizer.lr": 5e-5,
        "scheduler.min_lr": 1e-6,
        "scheduler.warmup_steps": 300,
        "train.epochs": 10,
        "train.global_batch_size": 64,
        "train.log_every": 100,
        "evaluation.early_stopping.patience": 2,
        "template.user_prefix": "<|im_start|>user\n",
        "template.end_token": "<|im_end|>",
    },
    "gptneox_atorch_full": {
        **_ATORCH,
        "peft._target_": "mftrun.models.adapters.FullFineTuning",
        "optimizer.lr": 1e-4,
        "scheduler.warmup_steps": 500,
        "scheduler.min_lr": 1e-5,
        "evaluation.every": 2000,
        "evaluation.early_stopping.patience": 10,
        "data.valid_fraction": 0.05,
    },
    "gptneox_atorch_lora": {
        **_ATORCH,
        "peft.r": 96,
        "optimizer.lr": 5e-5,
        "scheduler.warmup_steps": 30,
        "scheduler.min_lr": 1e-6,
        "evaluation.every": 500,
        "evaluation.early_stopping.patience": 5,
        "data.valid_fraction": 0.1,
    },
    "coba": {
        **_QLORA,
        "data.valid_fraction": 0.05,
        "optimizer.betas": [0.9, 0.999],
        "train.global_batch_size": 64,
        "loss.weighting.warmup": 100,
        "loss.weighting.window": 200,
        "loss.weighting.tau": 5.0,
        "loss.weighting.sharpness": 1.0,
        "loss.weighting.min_weight": 0.1,
    },
    "self_paced": {
        **_QLORA,
        "optimizer.betas": [0.9, 0.95],
        "train.global_batch_size": 16,
        "loss.weighting.window": 100,
        "loss.weighting.scale": 50.0,
        "loss.weighting.warmup": 100,
    },
}


def model_of(name):
    """What the recipes for a model of one's own leave open."""
    return ["model=llama"] if name in ("coba", "self_paced") else []


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_values_arrive(name, tmp_path):
    config = compose([f"experiment={name}", *model_of(name), f"data.tasks.mine.path={tmp_path}"])
    check(config)
    expected = {"data.max_length": 4096, "data.on_overlong": "skip", **PUBLISHED[name]}
    assert {key: _get(config, key) for key in expected} == expected
    assert config["name"] == name
    assert config["train"]["gradient_checkpointing"]
    assert config["train"]["max_steps"] is None


def _get(config, key):
    for part in key.split("."):
        if part == "bits":
            return {"mftrun.models.quantization.FourBit": 4}.get(config["_target_"])
        config = config[part]
    return config


@pytest.mark.parametrize("name", list(BASES))
def test_plan_says_what_a_recipe_needs(name, tmp_path, capsys):
    sizes, billions = BASES[name]
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    data = f"data.tasks.mine.path={tmp_path}"
    overrides = [f"experiment={name}", *model_of(name), f"model.path={tmp_path}", data]
    config = compose(["job=plan", *overrides, "job.devices=8", "job.device_memory=80GiB"], tmp_path)
    build(config["job"], Job, "job", allowed=check(config).allowed_targets).run(config, tmp_path)
    planned = json.loads((tmp_path / "plan.json").read_text())
    adapters = 0 if name == "gptneox_atorch_full" else planned["trained"]
    assert planned["parameters"] - adapters == pytest.approx(billions * 1e9, rel=0.01)
    assert planned["ranks"] == 8
    assert planned["needed"] > 0
    if name in IN_16_BIT:
        weights = planned["device"]["weights"] / 2**30
        assert weights == pytest.approx(IN_16_BIT[name], abs=0.1)
    assert "allocated at the peak" in capsys.readouterr().out
