"""Keys of MFTCoder that have no counterpart, each with the reason."""

from __future__ import annotations

from types import MappingProxyType

_TOKENIZER = "the tokenizer is the one in the model's folder"
_SAMPLING = "samples are always shuffled, and split at random"
_NOTHING = "set nothing in training"
_HUB = "RUN/model is a folder that the hub's own tools upload"
_SCRATCH = "of a model from scratch: write one with transformers and give its folder as model.path"

UNREAD = MappingProxyType(
    {
        "config_path": _SCRATCH,
        "evaluation_strategy": "evaluation.every counts steps; job=preview says how many make an epoch",
        "fp16": "bfloat16 needs no loss scaling: train.precision=bf16",
        "fp16_lm_cross_entropy": "losses are in float32",
        "greater_is_better": "what is watched is a loss",
        "hidden_size": _SCRATCH,
        "hub_model_id": _HUB,
        "hub_token": _HUB,
        "ignore_mismatched_sizes": "weights that are missing or do not fit are refused",
        "init_timeout_seconds": "ranks meet once data is ready: nobody waits for the tokenizer",
        "is_pipe_parallel": _NOTHING,
        "iteration": _NOTHING,
        "local_rank": "the launcher says it to each process",
        "low_cpu_mem_usage": "weights are always loaded without a second copy",
        "make_vocab_size_divisible_by": "MFTCoder computed a size with it that nothing used",
        "metric_for_best_model": "evaluation.early_stopping.metric: mean of all tasks, or a task's name",
        "model_parallel_size": "only 1 worked; distributed=fsdp, zero3 or tp divide a model",
        "model_types": _SCRATCH,
        "no_keep_linebreaks": _NOTHING,
        "num_hidden_layers": _SCRATCH,
        "num_update_steps_per_epoch": "follows from the data",
        "num_workers": "tokens are read from a file: no workers load them",
        "overwrite_cache": "the cache is keyed by data, tokenizer and template: it never is out of date",
        "padding": "padding_mode decides",
        "pipe_parallel_size": _NOTHING,
        "push_to_hub": _HUB,
        "real_dataloader": _NOTHING,
        "report_to": "tracker=local, wandb or default",
        "resume_step": _NOTHING,
        "save_strategy": "checkpoint.every_steps and checkpoint.every_epoch",
        "shuffle_before_split": _SAMPLING,
        "skip_atorch_autoacc_dryrun": "nothing is tried out: the strategy is what the command says",
        "split_before_read": _NOTHING,
        "tokenizer_path": _TOKENIZER,
        "tokenizer_type": _TOKENIZER,
        "total_model_param": _NOTHING,
        "train_iters": _NOTHING,
        "train_mode": "tokenize_mode decides",
        "trust_remote_code": "native classes bring no code: model.trust_remote_code for a model that does",
        "use_dynamic_padding": "rows=padding always puts rows of like length together",
        "use_random_sampler": _SAMPLING,
        "use_slow_tokenizer": _TOKENIZER,
        "use_weighted_loss": "weighted_loss_mode decides",
        "use_xformers": "model.attention decides",
        "valid_iters": "it counted batches; data.valid_max limits the samples of each task",
        "validation_split_percentage": "data_split decides",
        "vocab_file": _TOKENIZER,
        "vocab_size": _SCRATCH,
        "weight_by_num_documents": "it set weights that MFTCoder's loss did not read",
        "with_tracking": "tracker=local, wandb or default",
        "world_size": "MFTCoder replaced it by the number of processes: gpus=N says how many those were",
        "bits": "peft=qlora has 4 bit, peft=qlora8 has 8; ATorch's half had neither",
        "zero_opt_level": "nothing read it: ATorch's half was always FSDP, as distributed=atorch is",
    }
)
"""Key → why nothing stands for it."""
