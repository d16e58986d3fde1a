"""The programs that read MFTCoder's configs: what each assumed where a config says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mftrun.errors import ConfigError

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Dialect:
    """One of those programs.

    Attributes:
        name: What to call it.
        defaults: Values of keys that a config does not hold.
        template: Our option for its roles.
        betas: Of its AdamW; None where the config has keys for them.
        targets: Model type → layers that got adapters where no key says so; all linear ones for others.
        reads_quantization: Whether `quantization` counted; else `peft_type` alone decided.
        counts_warmup_by_gpu: Whether its schedule moved on by as many steps as there were GPUs, warm-up
            included.
        recomputes: Whether it always recomputed activations.
    """

    name: str
    defaults: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    template: str = "mftcoder"
    betas: tuple[float, float] | None = None
    targets: Mapping[str, Sequence[str]] = field(default_factory=lambda: _NOTHING)
    reads_quantization: bool = False
    counts_warmup_by_gpu: bool = False
    recomputes: bool = True


_PRETRAINING = MappingProxyType(
    {
        "load_raw_dataset": True,
        "data_split": "98,2,0",
        "padding_mode": "padding",
        "tokenize_mode": "sft",
        "weighted_loss_mode": "case3",
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "learning_rate": 5e-5,
        "min_lr": 5e-6,
        "weight_decay": 0.01,
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "cosine",
        "num_warmup_steps": 0.05,
        "num_train_epochs": 4,
        "seed": 1234,
        "seq_length": 4096,
        "log_interval": 10,
        "checkpointing_steps": 100,
        "evaluation_steps": 100,
        "epoch_checkpointing": False,
        "early_stopping": True,
        "early_stopping_stall_num": 5,
        "coba_warmup_steps": 100,
        "coba_history_length": 200,
        "coba_tau": 5,
        "coba_update_interval": 1,
        "coba_sample_valid_num": 1,
    }
)
_ADAPTERS = MappingProxyType(
    {"peft_type": "qlora", "quantization": "4bit", "lora_rank": 96, "lora_alpha": 32, "lora_dropout": 0.05}
)
_SELF_PACED = MappingProxyType(
    {
        "num_warmup_steps": 300,
        "selfpaced_interval": 1,
        "selfpaced_history_length": 100,
        "selfpaced_sample_valid_num": 1,
        "selfpaced_scale_factor": 50,
    }
)

NEWEST = Dialect(
    "mftcoder_accelerate (v0.5)", MappingProxyType({**_PRETRAINING, **_ADAPTERS}), betas=(0.9, 0.999)
)
PRETRAINING = Dialect("mftcoder_accelerate (v0.5), mpt", _PRETRAINING, betas=(0.9, 0.999))
MIDDLE = Dialect(
    "mftcoder_accelerate (v0.3, v0.4)",
    MappingProxyType({**_PRETRAINING, **_ADAPTERS, **_SELF_PACED}),
    betas=(0.9, 0.95),
    reads_quantization=True,
    counts_warmup_by_gpu=True,
)
FIRST = Dialect(
    "mft_peft_hf (v0.1)",
    template="atorch",
    betas=(0.9, 0.95),
    targets=MappingProxyType({"llama": ("q_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj")}),
    reads_quantization=True,
    counts_warmup_by_gpu=True,
)
ATORCH = Dialect(
    "mftcoder_atorch",
    MappingProxyType(
        {
            "padding_mode": "padding",
            "tokenize_mode": "sft",
            "model_type": "gpt_neox",
            "lora_rank": 96,
            "lora_alpha": 32,
            "lora_dropout": 0.05,
            "per_device_valid_batch_size": 8,
            "total_train_batch_size": 8,
            "learning_rate": 1e-5,
            "min_lr": 1e-7,
            "weight_decay": 0.0,
            "adam_beta1": 0.9,
            "adam_beta2": 0.999,
            "adam_epsilon": 1e-8,
            "num_train_epochs": 3,
            "gradient_accumulation_steps": 1,
            "lr_scheduler_type": "linear",
            "num_warmup_steps": 100,
            "valid_interval": 1000,
        }
    ),
    template="atorch",
    recomputes=False,
)

# Keys that only one program has, most telling first.
_TELLING: tuple[tuple[frozenset[str], Dialect], ...] = (
    (
        frozenset(
            {"total_train_batch_size", "custom_lr_scheduler_type", "valid_interval", "tensorboard_dir"}
        ),
        ATORCH,
    ),
    (frozenset({"vocab_file", "evalation_steps"}), FIRST),
    (
        frozenset(
            {
                "selfpaced_interval",
                "selfpaced_history_length",
                "selfpaced_sample_valid_num",
                "selfpaced_scale_factor",
            }
        ),
        MIDDLE,
    ),
    (frozenset({"save_transformers_model"}), PRETRAINING),
)
_PREFERENCES = ("xxpo", "beta", "rpo_alpha")


def dialect_of(given: Mapping[str, Any], path: Path) -> Dialect:
    """Which program a config was for, by the keys that only it has.

    Raises:
        ConfigError: The config is for training on preferences (DPO, ORPO).
    """
    for key in _PREFERENCES:
        if key in given:
            raise ConfigError(
                "file", f"{path}: {key} is for training on pairs of answers (DPO, ORPO), which is not offered"
            )
    if given.get("weighted_loss_mode") == "selfpaced":
        return MIDDLE
    return next((dialect for keys, dialect in _TELLING if keys & given.keys()), NEWEST)
