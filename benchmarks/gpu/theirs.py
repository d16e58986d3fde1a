"""Measures TRL's SFTTrainer on the same samples, in a process of its own.

`python benchmarks/gpu/theirs.py CASE.json RESULT.json` is that process.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import statistics
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from material import read_samples, token_ids
from measured import NOT_INSTALLED, Case, FailedError, Speed, environment, run
from shapes import METHODS, SHAPES

NEEDED = "trl==1.16.0"
REPOSITORY = Path(__file__).resolve().parents[2]


def has_liger(device: str) -> bool:
    """Whether its kernels can be used: they are Triton's."""
    return device != "cpu" and importlib.util.find_spec("liger_kernel") is not None


def measure(case: Case, folder: Path) -> Speed:
    """Trains in a process of its own.

    Args:
        case: What to train.
        folder: Where the log goes.

    Raises:
        FailedError: TRL is not installed, or it failed.
    """
    if importlib.util.find_spec("trl") is None:
        raise FailedError(f"{NOT_INSTALLED}: pip install {NEEDED}")
    described, result = folder / "case.json", folder / "result.json"
    described.write_text(json.dumps({**asdict(case), "material": str(case.material)}), encoding="utf-8")
    command = [sys.executable, __file__, described, result]
    run(command, folder, environment(case.device, REPOSITORY), case.limit)
    seconds, tokens, memory = json.loads(result.read_text(encoding="utf-8"))
    speeds = [count / second for count, second in zip(tokens, seconds, strict=True)]
    return Speed(statistics.median(speeds[case.warmup :]), memory)


def _train(case: Case) -> tuple[list[float], list[int], float]:
    """Seconds and tokens of every step, and peak memory in GiB."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTTrainer

    class Watch(TrainerCallback):
        """Writes down when steps begin and end; the GPU is waited for."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self._note()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self._note()

        def _note(self) -> None:
            if case.device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    times: list[float] = []
    counts: list[int] = []
    ids = [token_ids(text) for text in read_samples(case.material)]
    trainer = SFTTrainer(
        model=str(case.material / "model"),
        args=_arguments(case),
        train_dataset=Dataset.from_dict({"input_ids": ids}),
        processing_class=AutoTokenizer.from_pretrained(case.material / "model"),
        peft_config=_adapter(case),
        callbacks=[Watch()],
    )
    collate = trainer.data_collator

    def counting(examples: Any) -> Any:
        counts.append(sum(len(example["input_ids"]) for example in examples))
        return collate(examples)

    trainer.data_collator = counting
    trainer.train()
    seconds = [end - start for start, end in pairwise(times)]
    each = SHAPES[case.shape].global_batch // SHAPES[case.shape].micro_batch  # one more may be fetched ahead
    tokens = [sum(counts[step * each : (step + 1) * each]) for step in range(len(seconds))]
    return seconds, tokens, _peak_gib(case.device)


def _arguments(case: Case) -> Any:
    from trl import SFTConfig

    shape = SHAPES[case.shape]
    return SFTConfig(
        output_dir="out",
        packing=True,
        packing_strategy="bfd",
        max_length=shape.length,
        max_steps=case.warmup + case.steps,
        per_device_train_batch_size=shape.micro_batch,
        gradient_accumulation_steps=shape.global_batch // shape.micro_batch,
        gradient_checkpointing=case.recompute,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        bf16=case.device != "cpu",
        use_cpu=case.device == "cpu",
        use_liger_kernel=has_liger(case.device),
        model_init_kwargs=_loading(case),
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


def _loading(case: Case) -> dict[str, Any]:
    """Weights that are trained are held in 32 bit, as ours are."""
    import torch

    method = METHODS[case.method]
    half = method.rank is not None and case.device != "cpu"
    options = {
        "dtype": torch.bfloat16 if half else torch.float32,
        "attn_implementation": case.attention,
    }
    return {**options, "quantization_config": _four_bit(options["dtype"])} if method.four_bit else options


def _four_bit(dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _adapter(case: Case) -> Any:
    from peft import LoraConfig

    rank = METHODS[case.method].rank
    if rank is None:
        return None
    return LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear"
    )


def _peak_gib(device: str) -> float:
    import torch

    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Train as the case says and write what was measured."""
    given, result = (Path(argument) for argument in sys.argv[1:3])
    described = json.loads(given.read_text(encoding="utf-8"))
    case = Case(**{**described, "material": Path(described["material"])})
    result.write_text(json.dumps(_train(case)), encoding="utf-8")


if __name__ == "__main__":
    main()
