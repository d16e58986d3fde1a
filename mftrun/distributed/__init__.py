"""Strategies: how the ranks of a run share one model, and how they are joined.

`base` says what a strategy and its engine are, `machines` where ranks run, `group` how they are joined;
`replicated`, `fsdp`, `zero` and `tensor_parallel` are the strategies.
"""

from mftrun.distributed.base import Engine, Sharding, Strategy
from mftrun.distributed.fsdp import Fsdp
from mftrun.distributed.group import leave_group, resolve_precision
from mftrun.distributed.ranks import Ranks
from mftrun.distributed.replicated import Ddp, Single
from mftrun.distributed.tensor_parallel import TensorParallel
from mftrun.distributed.zero import Zero

__all__ = [
    "Ddp",
    "Engine",
    "Fsdp",
    "Ranks",
    "Sharding",
    "Single",
    "Strategy",
    "TensorParallel",
    "Zero",
    "leave_group",
    "resolve_precision",
]
