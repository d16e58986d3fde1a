"""The training configs that MFTCoder published, and the keys of the programs that read them, by hand."""

PLACES = {
    "data_paths": "$DATA_PATHS",
    "output_dir": "$OUTPUT_DIR",
    "tb_dir": "$TensorBoard_DIR",
    "pretrained_model_path": "$MODEL_NAME_OR_PATH",
}
_ACCELERATE = {
    **PLACES,
    "model_type": "$MODEL_TYPE",
    "load_raw_dataset": True,
    "data_split": "98,2,0",
    "padding_mode": "padding",
    "use_dynamic_padding": True,
    "tokenize_mode": "sft",
    "tokenizer_type": "AutoTokenizer",
    "weighted_loss_mode": "case3",
    "attn_implementation": "flash_attention_2",
    "seq_length": 4096,
    "seed": 1234,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "learning_rate": 5e-5,
    "min_lr": 5e-6,
    "weight_decay": 0.1,
    "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "cosine",
    "num_warmup_steps": 300,
    "num_train_epochs": 4,
    "resume_from_checkpoint": None,
    "log_interval": 10,
    "checkpointing_steps": 100,
    "evaluation_steps": 100,
    "max_train_steps": None,
    "epoch_checkpointing": True,
    "shuffle_before_split": True,
    "early_stopping": True,
    "early_stopping_stall_num": 5,
    "saving_limit": None,
}
_QLORA = {
    **_ACCELERATE,
    "peft_type": "qlora",
    "quantization": "4bit",
    "lora_rank": 96,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
}
_FIRST = {
    **PLACES,
    "vocab_file": "$MODEL_NAME_OR_PATH",
    "load_raw_dataset": True,
    "low_cpu_mem_usage": True,
    "data_split": "95,5,0",
    "padding_mode": "pack",
    "tokenize_mode": "sft",
    "weighted_loss_mode": "case3",
    "lora_rank": 32,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "tokenizer_type": "AutoTokenizer",
    "learning_rate": 1e-4,
    "min_lr": 1e-5,
    "weight_decay": 0.1,
    "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "cosine",
    "seed": 1234,
    "seq_length": 4096,
    "resume_from_checkpoint": None,
    "max_train_steps": None,
    "shuffle_before_split": True,
    "use_random_sampler": True,
    "early_stopping": True,
    "early_stopping_stall_num": 5,
    "weight_by_num_documents": True,
    "make_vocab_size_divisible_by": 128,
    "model_parallel_size": 1,
    "use_slow_tokenizer": False,
    "use_xformers": True,
    "trust_remote_code": True,
    "use_dynamic_padding": True,
    "world_size": 128,
    "checkpointing_steps": 1000,
    "evalation_steps": 1000,
}


def _first(model_type, peft, quantization, batch, warmup, epochs, **more):
    return {
        **_FIRST,
        "model_type": model_type,
        "peft_type": peft,
        "quantization": quantization,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "num_warmup_steps": warmup,
        "num_train_epochs": epochs,
        "log_interval": 10,
        "epoch_checkpointing": True,
        **more,
    }


_WORKERS = {"preprocessing_num_workers": 2, "num_workers": 2, "checkpoint_activations": True}
_ATORCH = {
    "load_raw_dataset": True,
    "data_paths": "$DATA_PATHS",
    "data_weights": "[1.,1.]",
    "tokenize_mode": "sft",
    "padding_mode": "padding",
    "pretrained_model_path": "$MODEL_NAME_OR_PATH",
    "vocab_file": "../utils/vocab.json",
    "model_type": "gpt_neox",
    "padding": True,
    "train_iters": 100,
    "custom_lr_scheduler_type": "cosine",
    "seq_length": 4096,
    "total_train_batch_size": 32,
    "per_device_valid_batch_size": 4,
    "seed": 42,
    "preprocessing_num_workers": 6,
    "num_workers": 8,
    "output_dir": "$OUTPUT_DIR",
    "tensorboard_dir": "$TensorBoard_DIR",
    "ignore_mismatched_sizes": True,
    "skip_atorch_autoacc_dryrun": True,
    "tp": 1,
    "dp": 8,
    "bf16": True,
    "log_interval": 10,
    "make_vocab_size_divisible_by": 128,
    "weighted_loss_mode": "case3",
    "checkpoint_activations": True,
    "resume_from_checkpoint": "false",
    "max_grad_norm": 1,
    "evaluation_strategy": "steps,epoch",
    "save_strategy": "steps",
    "save_total_limit": 2,
    "extra_save_by_epoch": True,
    "metric_for_best_model": "loss",
    "greater_is_better": "false",
    "num_train_epochs": 4,
}

PUBLIC = {
    "qlora": _QLORA,
    "lora": {**_QLORA, "peft_type": "lora", "quantization": None},
    "full": {**_ACCELERATE, "peft_type": None, "saving_limit": 3},
    "selfpaced": {
        **_QLORA,
        "weighted_loss_mode": "selfpaced",
        "selfpaced_interval": 1,
        "selfpaced_history_length": 100,
        "selfpaced_sample_valid_num": 1,
        "selfpaced_scale_factor": 50,
    },
    "coba": {
        **_QLORA,
        "data_split": "95,5,0",
        "weighted_loss_mode": "coba",
        "coba_warmup_steps": 100,
        "coba_history_length": 200,
        "coba_tau": 5,
        "coba_update_interval": 1,
        "coba_sample_valid_num": 1,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
    },
    "v01_llama": _first("llama", "qlora", "4bit", 2, 300, 8),
    "v01_starcoder": _first("starcoder", "lora", None, 4, 100, 8, log_interval=50, epoch_checkpointing=False),
    "v01_chatglm2": _first("chatglm2", "lora", None, 4, 1000, 6, log_interval=50),
    "v01_gpt_neox": _first(
        "gpt_neox",
        "lora",
        "16bit",
        8,
        30,
        8,
        padding_mode="padding",
        seed=42,
        checkpointing_steps=500,
        evalation_steps=500,
        **_WORKERS,
    ),
    "v01_qwen": _first(
        "qwen",
        "lora",
        "16bit",
        4,
        1000,
        4,
        padding_mode="padding",
        seq_length=2048,
        epoch_checkpointing=False,
        **_WORKERS,
    ),
    "competition": _first(
        "qwen",
        "lora",
        "16bit",
        8,
        300,
        10,
        data_paths="[/path/to/dataset1,/path/to/dataset2]",
        pretrained_model_path="/path/to/Qwen-1_8B/model",
        padding_mode="padding",
        lora_rank=96,
        learning_rate=5e-5,
        min_lr=1e-6,
        log_interval=100,
        early_stopping_stall_num=2,
        world_size=8,
    ),
    "atorch_full": {
        **_ATORCH,
        "data_split": "95,5,0",
        "num_warmup_steps": 500,
        "learning_rate": 1e-4,
        "min_lr": 1e-5,
        "valid_iters": 10,
        "valid_interval": 2000,
        "checkpointing_steps": 2000,
        "train_mode": "sft",
        "early_stopping_patience": 10,
    },
    "atorch_lora": {
        **_ATORCH,
        "data_split": "90,10,0",
        "num_warmup_steps": 30,
        "learning_rate": 5e-5,
        "min_lr": 1e-6,
        "valid_iters": 400,
        "valid_interval": 500,
        "checkpointing_steps": 500,
        "peft_type": "lora",
        "early_stopping_patience": 5,
        "use_dynamic_padding": True,
    },
}
"""Name → config; those of ATorch were arguments of scripts."""

PREFERENCES = {**PLACES, "xxpo": "dpo", "model_type": "llama", "beta": 0.1, "rpo_alpha": 0.5}

_SHARED = """data_paths output_dir tb_dir pretrained_model_path model_type load_raw_dataset task_weights
    data_weights low_cpu_mem_usage data_split padding_mode tokenize_mode weighted_loss_mode
    per_device_train_batch_size per_device_eval_batch_size tokenizer_type learning_rate min_lr
    weight_decay gradient_accumulation_steps lr_scheduler_type num_warmup_steps num_train_epochs
    seed seq_length resume_from_checkpoint auto_resume log_interval checkpointing_steps
    evaluation_steps max_train_steps epoch_checkpointing shuffle_before_split use_random_sampler
    early_stopping early_stopping_stall_num saving_limit use_dynamic_padding attn_implementation
    role_markers distributed_type use_xformers trust_remote_code weight_by_num_documents
    make_vocab_size_divisible_by model_parallel_size use_slow_tokenizer world_size"""
_PEFT = " peft_type quantization lora_rank lora_alpha lora_dropout target_modules"
_COBA = (
    " coba_warmup_steps coba_history_length coba_tau coba_update_interval coba_sample_valid_num"
    " init_timeout_seconds"
)

ARGUMENTS = {
    "MftTrainArgs": _SHARED + _PEFT + _COBA,
    "TrainArgs": _SHARED
    + _PEFT
    + " selfpaced_interval selfpaced_history_length selfpaced_sample_valid_num selfpaced_scale_factor",
    "MptTrainArgs": _SHARED + _COBA + " save_transformers_model",
    "atorch": """load_raw_dataset data_paths data_weights data_split padding tokenize_mode train_mode
    weighted_loss_mode padding_mode shuffle_before_split use_random_sampler use_weighted_loss
    early_stopping_patience weight_by_num_documents make_vocab_size_divisible_by
    validation_split_percentage pretrained_model_path config_path model_type peft_type bits
    use_xformers use_dynamic_padding tokenizer_path vocab_file tokenizer_type use_slow_tokenizer
    trust_remote_code ignore_mismatched_sizes per_device_train_batch_size
    per_device_valid_batch_size total_train_batch_size world_size local_rank learning_rate min_lr
    weight_decay adam_beta1 adam_beta2 adam_epsilon num_train_epochs max_steps
    gradient_accumulation_steps lr_scheduler_type custom_lr_scheduler_type num_warmup_steps
    num_update_steps_per_epoch resume_step fp16_lm_cross_entropy bf16 fp16 output_dir
    tensorboard_dir seed model_types seq_length hidden_size num_hidden_layers vocab_size
    total_model_param preprocessing_num_workers num_workers iteration overwrite_cache
    no_keep_linebreaks push_to_hub hub_model_id hub_token checkpointing_steps resume_from_checkpoint
    flash_attention with_tracking skip_atorch_autoacc_dryrun zero_opt_level report_to
    real_dataloader split_before_read tp dp pipe_parallel_size model_parallel_size train_iters
    valid_iters valid_interval is_pipe_parallel log_interval checkpoint_activations max_grad_norm
    evaluation_strategy save_strategy extra_save_by_epoch save_total_limit metric_for_best_model
    greater_is_better""",
}
"""Program → the keys that it knows."""
