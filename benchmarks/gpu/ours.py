"""Measures mftrun: a whole run from the command line, read from its metrics."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measured import Case, FailedError, Speed, environment, run
from shapes import METHODS, SHAPES

REPOSITORY = Path(__file__).resolve().parents[2]


def overrides(case: Case, folder: Path) -> list[str]:
    """The command line of the run."""
    shape, method = SHAPES[case.shape], METHODS[case.method]
    adapter = [f"peft={case.method if method.rank else 'none'}"]
    if method.rank:
        adapter += [f"peft.r={method.rank}", f"peft.alpha={2 * method.rank}", "peft.dropout=0"]
    return [
        "model=auto",
        f"model.path={case.material / 'model'}",
        f"model.attention={case.attention}",
        *adapter,
        f"data.tasks.random.path={case.material / 'samples'}",
        f"data.cache_dir={case.material / 'cache'}",
        f"data.max_length={shape.length}",
        "data.valid_max=1",
        "template=none",
        "rows=packing",
        "loss=token_mean",
        "distributed=single",
        "scheduler=constant",
        "tracker=none",
        f"train.precision={'fp32' if case.device == 'cpu' else 'bf16'}",
        f"train.gradient_checkpointing={str(case.recompute).lower()}",
        f"train.global_batch_size={shape.global_batch}",
        f"train.micro_batch_size={shape.micro_batch}",
        # The run is ended before its last step, after which it would save the model.
        f"train.max_steps={case.warmup + case.steps + 1}",
        "train.epochs=null",
        "train.log_every=1",
        "evaluation.every=null",
        "evaluation.batch_size=1",
        "checkpoint.every_steps=null",
        "checkpoint.every_minutes=null",
        "checkpoint.keep_best=false",
        f"output_dir={folder / 'run'}",
    ]


def measure(case: Case, folder: Path, more: Sequence[str] = ()) -> Speed:
    """Trains until enough steps are measured.

    Args:
        case: What to train.
        folder: Where the run and its log go.
        more: Overrides of the user.

    Raises:
        FailedError: It did not get that far.
    """
    command = [sys.executable, "-m", "mftrun", *overrides(case, folder), *more]
    metrics = folder / "run" / "metrics.jsonl"
    wanted = case.warmup + case.steps

    def enough() -> bool:
        return len(_records(metrics)) >= wanted

    run(command, folder, environment(case.device, REPOSITORY), case.limit, enough)
    records = _records(metrics)[case.warmup : wanted]
    if len(records) < case.steps:
        raise FailedError(f"ended after {len(records)} of {case.steps} steps, see {folder / 'log'}")
    return Speed(
        statistics.median(record["tokens_per_second"] for record in records),
        max(record["memory_gib"] for record in records),
    )


def _records(metrics: Path) -> list[Mapping[str, Any]]:
    """Those of training steps; a line that is being written is not one yet."""
    if not metrics.exists():
        return []
    whole = metrics.read_text(encoding="utf-8").rpartition("\n")[0]
    records = [json.loads(line) for line in whole.splitlines()]
    return [record for record in records if "tokens_per_second" in record]
