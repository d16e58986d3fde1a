"""Bases and trained adapters in folders, and merging one into the other as the job does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from mftrun.jobs.merge import MergeJob
from mftrun.models.tokenizers import train_bpe

VOCAB = 96
IDS = torch.arange(3, 25)
_SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT: dict[str, Any] = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _SMALL,
    "llama_tied": {**_SMALL, "model_type": "llama", "tie_word_embeddings": True},
    "qwen3": {**_SMALL, "head_dim": 8},
    "gemma2": {**_SMALL, "head_dim": 8, "query_pre_attn_scalar": 8},
    "gpt_neox": _SMALL,
    "gpt_bigcode": {**_GPT, "multi_query": True},
    "gpt2": _GPT,
    "deepseek_v3": {
        **_SMALL,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
    },
    "mixtral": {**_SMALL, "num_local_experts": 4, "num_experts_per_tok": 2},
}


@dataclass(frozen=True)
class World:
    """An adapter on a base, both in folders, and what they say together."""

    adapter: Path
    base: Path
    logits: torch.Tensor

    def merge(self, **settings: Any) -> Path:
        output = self.adapter.parent / "merged"
        job = MergeJob(adapter=str(self.adapter), output=str(output), **settings)
        job.run({}, self.adapter.parent)
        return output

    def difference(self, merged: Path) -> float:
        """Largest difference from the adapter's logits, by plain transformers."""
        found = logits(load(merged))
        return float((found - self.logits).abs().max() / self.logits.abs().max())


def world(folder: Path, family: str = "llama", entries: int | None = None, **settings: Any) -> World:
    """A low-rank adapter with random numbers."""
    base = base_folder(folder / "base", family)
    model = load(base)
    if entries is not None:
        model.resize_token_embeddings(entries)
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, **{"r": 2, "target_modules": "all-linear", **settings})
    return saved(folder / "adapter", base, get_peft_model(model, config))


def saved(folder: Path, base: Path, model: Any, adapter: Any = None) -> World:
    """Saves a model's adapter, moved at random, as peft does or as `adapter` does."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.eval()
    if adapter is None:
        model.save_pretrained(folder)
    else:
        folder.mkdir()
        adapter.save(model, folder)
    return World(folder, base, logits(model))


def base_folder(folder: Path, family: str = "llama", **changes: Any) -> Path:
    """A random model with weights so large that every part shows in the logits."""
    settings = {"model_type": family, **FAMILIES[family], **changes}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    for name, buffer in model.named_buffers():
        if name in model.state_dict():
            buffer.data.add_(torch.randn_like(buffer))
    model.save_pretrained(folder, max_shard_size="30KB")
    return folder


def load(folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    return model.eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(IDS[None], use_cache=False).logits[0]


def with_adapter(base: Path, adapter: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(load(base), adapter))


def tokenizer(entries: int = 300) -> Any:
    return train_bpe(["a few words of text"], entries)


def settings_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())
