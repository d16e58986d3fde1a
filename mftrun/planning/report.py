"""A plan as a table for people, and as plain values for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mftrun.planning.advice import Option
from mftrun.planning.estimate import CONTEXT, GIB, Estimate
from mftrun.planning.model import ModelSize
from mftrun.planning.setup import Setup
from mftrun.text_table import text_table

_MEANING: Mapping[str, str] = MappingProxyType(
    {
        "weights": "this rank's part, as stored",
        "gathered weights": "two layers, and what is in none",
        "gradients": "of trained weights",
        "optimizer": "AdamW's moments, and copies where there are some",
        "exchange buffers": "gradients on their way",
        "activations": "what the backward pass needs",
        "output head": "one chunk of logits, its gradients",
        "working memory": "of one layer's backward pass",
    }
)


def report(
    model: ModelSize, setup: Setup, found: Estimate, memory: int | None, options: Sequence[Option]
) -> str:
    """A page of text.

    Args:
        model: The model with its adapters.
        setup: The run.
        found: Its memory.
        memory: Bytes of one device; None where nobody knows.
        options: What would make the run fit.
    """
    parts = [_header(model, setup), _table(found), _host(found), _verdict(found, memory)]
    if memory is not None and found.needed > memory:
        parts.append(_advice(options))
    return "\n\n".join(parts)


def as_values(
    model: ModelSize, setup: Setup, found: Estimate, memory: int | None, options: Sequence[Option]
) -> dict[str, Any]:
    """The same as plain values, sizes in bytes; arguments as of `report`."""
    return {
        "parameters": model.whole.total,
        "trained": model.whole.trained,
        "active": model.active or model.whole.total,
        "ranks": setup.ranks,
        "device": dict(found.device),
        "moment": found.moment,
        "allocated": found.allocated,
        "slack": found.slack,
        "context": CONTEXT,
        "needed": found.needed,
        "host_training": found.host_training,
        "host_loading": found.host_loading,
        "rough": found.rough,
        "device_memory": memory,
        "fits": None if memory is None else found.needed <= memory,
        "options": [{"change": one.change, "needed": one.estimate.needed} for one in options],
    }


def _header(model: ModelSize, setup: Setup) -> str:
    whole, ranks = model.whole, "1 GPU" if setup.ranks == 1 else f"{setup.ranks} GPUs"
    rows = f"{setup.rows:,} x {setup.length:,} tokens in a micro-batch"
    precision = "bf16" if setup.half else "fp32"
    batches = _counted(setup.micro_batches, "micro-batch", "micro-batches")
    active = "" if model.active is None else f", {model.active:,} active per token"
    trained = f"{whole.trained:,} of them trained{active}"
    return (
        f"{model.architecture.family}: {whole.total:,} parameters, {trained}\n"
        f"{ranks}, {rows}, {batches} a step, {precision}"
    )


def _table(found: Estimate) -> str:
    rows = [["on each GPU", "GiB", ""]]
    for part, size in found.device.items():
        if size:
            rough = " (rough)" if part == "activations" and found.rough else ""
            rows.append([part, _gib(size), _MEANING[part] + rough])
    rows.append(["allocated at the peak", _gib(found.allocated), f"when {found.moment}"])
    rows.append(["allocator's slack", _gib(found.slack), "what it holds and cannot give"])
    rows.append(["CUDA context", _gib(CONTEXT), "kernels and libraries"])
    rows.append(["needed", _gib(found.needed), ""])
    text = text_table([[name, size] for name, size, _ in rows])
    lines = [f"{line}  {row[2]}".rstrip() for line, row in zip(text.splitlines(), rows, strict=True)]
    return "\n".join([*lines, *([f"rough: {found.rough}"] if found.rough else [])])


def _host(found: Estimate) -> str:
    loading, training = _gib(found.host_loading), _gib(found.host_training)
    return f"memory of each machine: {loading} GiB while models are loaded, {training} GiB in training"


def _verdict(found: Estimate, memory: int | None) -> str:
    if memory is None:
        return "there is no GPU here: job.device_memory=80GiB says what it shall fit into"
    word = "fits into" if found.needed <= memory else "does not fit into"
    return f"{_gib(found.needed)} GiB {word} {_gib(memory)} GiB"


def _advice(options: Sequence[Option]) -> str:
    if not options:
        return (
            "no single option makes it fit, nor the usual ones together: take shorter rows or a smaller model"
        )
    rows = [["would fit with", "GiB", "price"]]
    rows += [[one.change, _gib(one.estimate.needed), one.price] for one in options]
    text = text_table([row[:2] for row in rows])
    return "\n".join(f"{line}  {row[2]}" for line, row in zip(text.splitlines(), rows, strict=True))


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
