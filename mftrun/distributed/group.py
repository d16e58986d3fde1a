"""The process group of a run: joining it, leaving it, and the device and precision of a rank."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from mftrun.distributed.ranks import Ranks

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


def resolve_precision(asked: str) -> str:
    """Turns ``auto`` into ``bf16`` where the GPU computes in it and into ``fp32`` elsewhere."""
    import torch

    if asked != "auto":
        return asked
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"


def half(precision: str) -> torch.dtype | None:
    """The dtype of matrix products in mixed precision; None without."""
    import torch

    return {"bf16": torch.bfloat16, "fp32": None}[precision]


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[Any]]:
    """What surrounds a forward pass in mixed precision."""
    import torch

    dtype = half(precision)
    return nullcontext if dtype is None else partial(torch.autocast, device.type, dtype)


def join(precision: str, *, grouped: bool = False) -> Ranks:
    """Joins this process to the ranks that its environment names, if there are others.

    Args:
        precision: ``fp32`` or ``bf16``.
        grouped: Whether a rank without others is a process group, too, as libraries that divide a model ask.
    """
    _join_gpus()
    ranks = Ranks(_accelerator(precision))
    if grouped:
        _form_group(ranks.device)
    return ranks


def leave_group() -> None:
    """Ends this rank's process group; call it when nothing of the training is referenced any more.

    The group must outlive the model: DDP's reducer, freed last, would wait for gloo's threads while it holds
    the interpreter's lock that those threads need.
    """
    import gc

    from torch import distributed

    gc.collect()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _join_gpus() -> None:
    """With messages between the hosts' memories, too: of weights, moments and norms that lie there."""
    import os

    import torch
    from torch import distributed

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and torch.cuda.is_available() and not distributed.is_initialized():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("cpu:gloo,cuda:nccl")


def _form_group(device: torch.device) -> None:
    import os

    from torch import distributed

    if not distributed.is_initialized():
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed looks for it
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)


def _accelerator(precision: str) -> Accelerator:
    import os

    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        # Without it accelerate trains every rank alone on a machine that has no GPU.
        os.environ["ACCELERATE_USE_CPU"] = "true"
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns wherever a library looks for it
    # Buffers are the same on every rank from the start; sending them before each forward is waste.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    mixed = {"fp32": "no", "bf16": "bf16"}[precision]
    return Accelerator(cpu=on_cpu, mixed_precision=mixed, kwargs_handlers=[ddp])
