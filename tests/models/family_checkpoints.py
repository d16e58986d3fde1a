"""A tiny checkpoint of every family there is an option for, and a run of it from disk and back to disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from gradient_record import GradientRecord
from memory_samples import MemorySamples, joined
from model_families import tiny
from omegaconf import DictConfig
from peft import PeftModel
from transformers import AutoModelForCausalLM

from mftrun.compose import compose_config, resolved
from mftrun.data.epochs import SameSamples
from mftrun.data.mixture import Proportional
from mftrun.data.plan import Planner
from mftrun.data.rows import Packing, Padding, RowBuilder
from mftrun.distributed import Engine
from mftrun.jobs.assembly import prepare
from mftrun.jobs.export import ModelExport
from mftrun.jobs.layout import RunLayout
from mftrun.jobs.preparation import build_group
from mftrun.jobs.weights import load_model
from mftrun.losses.normalizations import TaskMean
from mftrun.losses.objective import Objective
from mftrun.losses.token_losses import CrossEntropy
from mftrun.losses.weightings import Static
from mftrun.models.families import FAMILIES, Family
from mftrun.models.quantization import keep_differentiable
from mftrun.models.tokenizers import train_bpe
from mftrun.paths import resource_dir
from mftrun.schema import RunConfig, check
from mftrun.training.agreement import Ballot, agree
from mftrun.training.feed import Feed
from mftrun.training.meter import Meter
from mftrun.training.step import accumulate

VOCAB = 300  # more than the tokenizer has, as in most published models
MAX_LENGTH = 64
TASKS = ["a", "b"]
_COMMON = [
    "distributed=single",
    "train.precision=fp32",
    f"data.max_length={MAX_LENGTH}",
    "optimizer.lr=0.01",
    "optimizer.weight_decay=0.0",  # which would move what has no gradient
]
_LORA = ["peft.r=4", "peft.dropout=0.0"]
ADAPTERS = {
    "full": ["peft=none"],
    "lora": ["peft=lora", *_LORA],
    # Computed in 32 bit, a difference is a mistake and no rounding.
    "qlora": ["peft=qlora", *_LORA, "peft.quantization.compute_dtype=float32"],
    "experts": ["peft=lora", *_LORA, "peft.experts=true"],
}


# One that has no option of its own.
_OTHER = Family("auto", ("cohere",), "CohereForCausalLM")


@dataclass(frozen=True)
class Case:
    """An option of `model`, and one of the architectures that it is for."""

    option: str
    model_type: str

    @property
    def family(self) -> Family:
        """What is known of it."""
        return FAMILIES.get(self.option, _OTHER)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Those of `ADAPTERS` that it is said to work with."""
        return ("full", *self.family.adapters, *(("experts",) if self.family.experts else ()))


CASES = [Case(family.option, kind) for family in (*FAMILIES.values(), _OTHER) for kind in family.model_types]


@cache
def _control_tokens(option: str) -> tuple[str, ...]:
    """Those that the option names, and those of chat templates."""
    node = yaml.safe_load((resource_dir("conf") / "model" / f"{option}.yaml").read_text())
    named = (node.get("end_token"), node.get("pad_token"))
    return (*(token for token in named if token), "<|im_start|>", "<|im_end|>")


def write_checkpoint(folder: Path, case: Case) -> Path:
    """Weights, config and tokenizer, as a family's authors publish them or a conversion leaves them."""
    tokenizer = train_bpe(["def f(x): return x\n"] * 20, 280, _control_tokens(case.option))
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    tiny(case.model_type, vocab_size=VOCAB, **ends).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if (legacy := case.family.converted) is not None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "converted_from": legacy}))
    return folder


def _composed(option: str, adapter: str, checkpoint: Path, run_dir: Path) -> dict[str, Any]:
    """What the command line gives; composed group by group, as many share one."""
    config = _of_option(option).copy()
    config.peft = _of_adapter(adapter).peft
    config.model.path = str(checkpoint)
    return resolved(config, run_dir)


@cache
def _of_option(option: str) -> DictConfig:
    return compose_config([f"model={option}", *_COMMON])


@cache
def _of_adapter(adapter: str) -> DictConfig:
    return compose_config(ADAPTERS[adapter])


class FamilyRun:
    """What `job=train` does in one rank, from the command line's choices to the exported model.

    Args:
        case: The option.
        adapter: One of `ADAPTERS`.
        checkpoint: Folder of the model.
        run_dir: Folder of the run.
    """

    def __init__(self, case: Case, adapter: str, checkpoint: Path, run_dir: Path) -> None:
        config = _composed(case.option, adapter, checkpoint, run_dir)
        check(config)
        self.config = RunConfig.from_dict(config)
        self.source = build_group(self.config, "model")
        self.source.check()
        self.adapter = build_group(self.config, "peft")
        self.layout = RunLayout(run_dir)
        tokenizer = self.source.tokenizer(lambda: iter(()))
        tokenizer.save_pretrained(self.layout.tokenizer)
        strategy = build_group(self.config, "distributed")
        ranks = strategy.join("fp32")
        torch.manual_seed(0)
        model = load_model(self.config, tokenizer, self.layout, strategy, ranks)
        self.engine: Engine = prepare(self.config, strategy, ranks, model)  # verifies losses and packing

    @property
    def model(self) -> Any:
        """The model, or its peft wrapper."""
        return self.engine.bare.model

    def accumulated(self, rows: RowBuilder, micro_batch_size: int) -> dict[str, float]:
        """Adds up the gradient of one global batch; the losses that would be logged."""
        store = _samples()
        planner = Planner(store.lengths, store.task, Proportional(), rows, 0, 8, MAX_LENGTH)
        split = {"rank": 0, "world_size": 1, "micro_batch_size": micro_batch_size, "pad_id": 0}
        feed = Feed(SameSamples(store, planner), 1, **split)
        ranks, meter = self.engine.ranks, Meter(self.engine.ranks, TASKS)
        ballot = Ballot(*feed.ballot(0, 0), stop=False, save=False)
        agreement = agree(ranks, ballot, torch.zeros(0, dtype=torch.float64))
        objective = Objective(CrossEntropy(), TaskMean(), Static({}), TASKS)
        accumulate(self.engine, objective, feed.window(0, 0), agreement, meter)
        meter.count(agreement)
        record = meter.record(dict.fromkeys(TASKS, 1.0))
        return {key: value for key, value in record.items() if key.startswith("train/")}

    @property
    def adapted(self) -> list[str]:
        """Paths of the modules that have an adapter."""
        return [name.partition(".lora_A")[0] for name in self.gradients() if ".lora_A" in name]

    def gradients(self) -> dict[str, torch.Tensor | None]:
        """Of every trained parameter."""
        named = self.engine.bare.named_parameters()
        return {name: parameter.grad for name, parameter in named if parameter.requires_grad}

    def exported(self) -> Path:
        """The folder of the trained model, written as a run writes it."""
        export = ModelExport.of(self.config, self.layout, self.engine)
        export.write(self.layout.model, export.gathered())
        return self.layout.model

    def reloaded(self, checkpoint: Path) -> Any:
        """The exported model, as someone without this project loads it."""
        folder, attention = self.layout.model, self.model.config._attn_implementation
        options = {"dtype": torch.float32, "attn_implementation": attention}
        if not hasattr(self.model, "peft_config"):
            return AutoModelForCausalLM.from_pretrained(folder, **options)
        if self.adapter.quantization is not None:
            options["quantization_config"] = self.adapter.quantization.config()
        base = AutoModelForCausalLM.from_pretrained(checkpoint, **options)
        keep_differentiable(base)  # the kernel for inference rounds otherwise
        return PeftModel.from_pretrained(base, folder)


ROWS: dict[str, tuple[RowBuilder, int]] = {"padded": (Padding(), 3), "packed": (Packing(), 2)}


@cache
def _samples() -> MemorySamples:
    """Eight of different lengths, of two tasks; some tokens are no targets."""
    random = np.random.default_rng(3)
    samples = []
    for task, length in enumerate((30, 11, 24, 9, 17, 5, 21, 13)):
        ids = random.integers(2, VOCAB - 1, length).astype(np.int32)
        samples.append((ids, np.arange(length) >= length // 3, task % 2))
    return joined(samples, tasks=TASKS)


@torch.no_grad()
def nll(model: Any) -> torch.Tensor:
    """Losses by the model's own logits, in evaluation mode."""
    ids = torch.from_numpy(_samples().tokens[:30].astype(np.int64))[None]
    logits = model.eval()(input_ids=ids).logits.float()
    return F.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")


def two_steps(run: FamilyRun) -> GradientRecord:
    """Trains on packed rows."""
    record = GradientRecord()
    for _ in range(2):
        run.accumulated(*ROWS["packed"])
        record.add(run.gradients().items())
        run.engine.step(0.01)
    return record
