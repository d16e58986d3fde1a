"""The process group of a run: joining it, leaving it, and the device and precision of a rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def join(precision: str, *, grouped: bool = False) -> Ranks:
    """Joins this process to the ranks that its environment names, if there are others.

    Args:
        precision: ``fp32`` or ``bf16``.
        grouped: Whether a rank without others is a process group, too, as libraries that divide a model ask.
    """
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


def _form_group(device: torch.device) -> None:
    import os

    from torch import distributed

    if not distributed.is_initialized():
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed looks for it
        backend = "nccl" if device.type == "cuda" else "gloo"
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
