"""From a run's configuration to what `mftrun.planning` takes, without weights and without data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from mftrun.distributed.fsdp import Fsdp
from mftrun.distributed.zero import Zero
from mftrun.jobs.preparation import build_group
from mftrun.models.adapters import Lora
from mftrun.models.pretrained import Pretrained, settle_attention
from mftrun.models.quantization import FourBit
from mftrun.planning.advice import Option
from mftrun.planning.choosing import Choice, choose, needs_of
from mftrun.planning.model import ModelSize
from mftrun.planning.setup import LIVE, Layout, Setup

if TYPE_CHECKING:
    from torch import nn

    from mftrun.distributed.base import Strategy
    from mftrun.models.adapters import Adapter
    from mftrun.models.base import ModelSource
    from mftrun.schema import RunConfig


@dataclass(frozen=True)
class Planned:
    """A run to estimate, and what it was made of.

    Attributes:
        model: The model with its adapters.
        setup: The run.
        source: Where the model comes from.
        adapter: What is trained of it.
        half: Whether matrix products are made in bf16.
    """

    model: ModelSize
    setup: Setup
    source: ModelSource
    adapter: Adapter
    half: bool

    def other_adapters(self) -> Iterator[Option]:
        """The run with LoRA, and with LoRA on 4-bit weights, unless it has them already."""
        if not self.adapter.freezes_base:
            yield self._with("peft=lora", Lora())
        if self.adapter.quantization is None:
            adapter = self.adapter if isinstance(self.adapter, Lora) else Lora()
            if not adapter.reads_weights:
                yield self._with("peft=qlora", replace(adapter, quantization=FourBit()))

    def _with(self, change: str, adapter: Adapter) -> Option:
        model = _measured(self.source, adapter, self.half)
        bytes_per_weight = None if adapter.quantization is None else adapter.quantization.bytes_per_weight
        loaded = _loaded_bytes(self.source, adapter, self.half)
        setup = replace(self.setup, loaded=loaded, quantized=bytes_per_weight)
        return Option(change, "another run: only adapters are trained", model, setup)


def describe(config: RunConfig, devices: int | None = None, strategy: Strategy | None = None) -> Planned:
    """Describes a run; `train.precision=auto` is that of a GPU, bf16.

    Args:
        config: The run's configuration.
        devices: Ranks of all machines; None asks the strategy.
        strategy: How ranks share the model; None builds the configuration's.

    Raises:
        ConfigError: The model's sizes cannot be had, or its adapters do not fit it.
    """
    source, adapter = build_group(config, "model"), build_group(config, "peft")
    half = config.train.precision != "fp32"
    model = _skeleton(source, adapter, half)
    strategy = strategy or build_group(config, "distributed")
    ranks, hosts = _places(strategy, devices)
    setup = replace(
        _setup(config, source, adapter, half),
        ranks=ranks,
        ranks_per_host=math.ceil(ranks / hosts),
        layout=layout_of(strategy, ranks),
    )
    size = _size(model)
    return Planned(size, replace(setup, head=_head(model, source, half)), source, adapter, half)


def choose_strategy(config: RunConfig, devices: int, memory: int, strategy: Strategy) -> Choice:
    """Chooses a strategy for a run, and says why.

    Args:
        config: The run's configuration.
        devices: GPUs of all machines.
        memory: Bytes of the smallest of them.
        strategy: Any that says on how many machines they are.

    Raises:
        ConfigError: As `describe`.
    """
    planned = describe(config, max(devices, 1), strategy)
    quantization = planned.adapter.quantization
    divisible = quantization is None or quantization.bits < 8
    return choose(devices, memory, needs_of(planned.model, planned.setup), divisible=divisible)


def layout_of(strategy: Any, ranks: int) -> Layout:
    """How a strategy shares out a model."""
    shared = Layout(**vars(strategy.sharding))
    if isinstance(strategy, Zero):
        live = _zero_live(strategy) if strategy.stage == 3 else 0
        return replace(shared, master=True, bucket=strategy.bucket_size, live=live)
    if isinstance(strategy, Fsdp):
        return replace(shared, whole_gradients=strategy.accumulate_whole_gradients)
    return replace(shared, keeps_gradients=ranks > 1 and not shared.gradients)


def _zero_live(strategy: Zero) -> int:
    options = strategy.options or {}
    return min(
        int(options.get("stage3_max_live_parameters", LIVE)),
        int(options.get("stage3_max_reuse_distance", LIVE)),
    )


def _places(strategy: Any, devices: int | None) -> tuple[int, int]:
    """Ranks of all machines, and the machines."""
    hosts = int(getattr(strategy, "num_nodes", 1))
    return devices or strategy.processes() * hosts, hosts


def _setup(config: RunConfig, source: ModelSource, adapter: Adapter, half: bool) -> Setup:
    """The run on one rank."""
    rows = build_group(config, "rows")
    return Setup(
        global_batch=config.train.global_batch_size,
        micro_batch=config.train.micro_batch_size,
        row_length=getattr(rows, "tokens", None) or config.data.max_length,
        half=half,
        loaded=_loaded_bytes(source, adapter, half),
        shares_rows=rows.shares_rows,
        joins_rows=rows.layout.joins_rows,
        quantized=None if adapter.quantization is None else adapter.quantization.bytes_per_weight,
        checkpointing=config.train.gradient_checkpointing,
        attention=_attention(source, half),
    )


def _attention(source: ModelSource, half: bool) -> Literal["sdpa", "eager", "flash"]:
    name = _settled(source, half)
    if name == "eager":
        return "eager"
    return "flash" if "flash" in name else "sdpa"


def _settled(source: ModelSource, half: bool) -> str:
    """What `auto` takes here; a named attention may be missing here, and is planned for all the same."""
    import torch

    name = getattr(source, "attention", "sdpa")
    if name != "auto":
        return name
    return settle_attention(source, torch.bfloat16 if half else torch.float32).attention


def _loaded_bytes(source: ModelSource, adapter: Adapter, half: bool) -> int:
    """Weights that are trained are held in 32 bit unless the model's option says otherwise."""
    named = {"float32": 4, "bfloat16": 2}.get(getattr(source, "dtype", "auto"))
    return named or (2 if half and adapter.freezes_base else 4)


def _head(model: nn.Module, source: ModelSource, half: bool) -> Literal["chunked", "fused", "liger"]:
    import torch

    from mftrun.models.heads import FusedHead, LigerHead, head_for

    head = head_for(model, source.head, torch.bfloat16 if half else torch.float32).head
    if isinstance(head, LigerHead):
        return "liger"
    return "fused" if isinstance(head, FusedHead) else "chunked"


def _measured(source: ModelSource, adapter: Adapter, half: bool) -> ModelSize:
    return _size(_skeleton(source, adapter, half))


def _size(model: nn.Module) -> ModelSize:
    from mftrun.planning.skeleton import measure

    return measure(model)


def _skeleton(source: ModelSource, adapter: Adapter, half: bool) -> nn.Module:
    """The model with its adapters, without any memory behind it."""
    import torch

    with torch.device("meta"):
        base = _bare(source, torch.bfloat16 if half and adapter.freezes_base else torch.float32)
        # What an adapter would take out of the weights changes their values, never their number.
        plain = replace(adapter, init="default") if isinstance(adapter, Lora) else adapter
        return plain.apply(base)


def _bare(source: ModelSource, dtype: Any) -> Any:
    if isinstance(source, Pretrained):
        # Every family has this one, and none of them has weights of its own.
        source = replace(source, attention="eager")
    # A tokenizer that is yet to be trained is as large as it may become.
    return source.skeleton(getattr(source, "vocab_size", 0), dtype)
