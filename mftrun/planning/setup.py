"""What the arithmetic must know of a run besides its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """What the ranks divide, and how the strategy that does so works.

    Attributes:
        weights: Each rank holds a part of the weights; a layer is gathered when it computes.
        gradients: Each rank holds a part of the gradients.
        optimizer: Each rank holds a part of the optimizer's state.
        cpu_optimizer: The optimizer's state lies in the host's memory.
        cpu_weights: The weights do.
        master: In bf16 the model is held in it, and the optimizer has 32-bit copies (DeepSpeed).
        keeps_gradients: Gradients take memory between steps, too (DDP's buckets).
        whole_gradients: Although divided, gradients stay whole until the last micro-batch of a step.
        bucket: Numbers that ranks exchange at once, in buffers of their own.
        live: Gathered weights are kept up to so many, if they will be used again (ZeRO-3).
    """

    weights: bool = False
    gradients: bool = False
    optimizer: bool = False
    cpu_optimizer: bool = False
    cpu_weights: bool = False
    master: bool = False
    keeps_gradients: bool = False
    whole_gradients: bool = False
    bucket: int = 0
    live: int = 0


BUCKET = 500_000_000
"""DeepSpeed's `reduce_bucket_size` as conf/distributed/ sets it."""
LIVE = 1_000_000_000
"""DeepSpeed's `stage3_max_live_parameters` and `stage3_max_reuse_distance`, where nothing else is set."""
_STAGE_2 = Layout(gradients=True, optimizer=True, master=True, bucket=BUCKET)
_STAGE_3 = Layout(weights=True, gradients=True, optimizer=True, master=True, bucket=BUCKET, live=LIVE)
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "single": Layout(),
        "ddp": Layout(keeps_gradients=True),
        "fsdp": Layout(weights=True, gradients=True, optimizer=True),
        "zero1": Layout(optimizer=True, master=True, bucket=BUCKET),
        "zero2": _STAGE_2,
        "zero3": _STAGE_3,
        "zero2_offload": Layout(**{**vars(_STAGE_2), "cpu_optimizer": True}),
        "zero3_offload": Layout(**{**vars(_STAGE_3), "cpu_optimizer": True, "cpu_weights": True}),
    }
)
"""The options of `distributed`, as they are without further keys."""


@dataclass(frozen=True)
class Numerics:
    """Bytes of one number, by what it is.

    Attributes:
        weight: A weight of the model as it is stored.
        adapter: A weight of an adapter.
        stream: A hidden state between two layers.
        compute: An input or an output of a matrix product.
        autocast: Whether torch's autocast copies what is wider than `compute`, each time it is needed.
    """

    weight: int
    adapter: int
    stream: int
    compute: int
    autocast: bool

    @property
    def casts_weights(self) -> bool:
        """Whether weights are copied for matrix products."""
        return self.autocast and self.weight > self.compute

    @property
    def casts_adapters(self) -> bool:
        """Whether weights of adapters are."""
        return self.autocast and self.adapter > self.compute

    @property
    def casts_inputs(self) -> bool:
        """Whether inputs of matrix products are."""
        return self.autocast and self.stream > self.compute


@dataclass(frozen=True)
class Setup:
    """A run, as far as its memory depends on it.

    Attributes:
        global_batch: Rows of a step, over all ranks.
        micro_batch: Rows of a forward pass on one rank.
        row_length: Tokens of a row.
        half: Whether matrix products are made in bf16.
        loaded: Bytes of a weight as the model is loaded, without quantisation.
        ranks: Of all machines.
        ranks_per_host: Of one machine.
        shares_rows: Whether a row holds several samples.
        joins_rows: Whether the rows of a micro-batch lie end to end.
        quantized: Bytes of a quantised weight, with its share of the constants; None without quantisation.
        checkpointing: Whether layers keep only their input, and compute the rest again.
        attention: Its implementation.
        head: How targets are projected.
        layout: What the ranks divide.
        mask: Bytes of one element of a dropout mask: 1 on a GPU; a CPU takes as much as for the input.
    """

    global_batch: int
    micro_batch: int
    row_length: int
    half: bool
    loaded: int
    ranks: int = 1
    ranks_per_host: int = 1
    shares_rows: bool = True
    joins_rows: bool = False
    quantized: float | None = None
    checkpointing: bool = False
    attention: Literal["sdpa", "eager", "flash"] = "sdpa"
    head: Literal["chunked", "fused", "liger"] = "chunked"
    layout: Layout = field(default_factory=Layout)
    mask: int = 1

    @property
    def numerics(self) -> Numerics:
        """Bytes of numbers. FSDP and DeepSpeed hand layers narrow weights; elsewhere autocast copies them."""
        if not self.half:
            return Numerics(self.loaded, 4, self.loaded, self.loaded, autocast=False)
        if self.layout.master:
            return Numerics(2, 2, 2, 2, autocast=False)
        if self.layout.weights:
            return Numerics(self.loaded, 4, 2, 2, autocast=False)
        return Numerics(self.loaded, 4, self.loaded, 2, autocast=True)

    @property
    def rows(self) -> int:
        """Rows of the tensors of a micro-batch."""
        return 1 if self.joins_rows else self._rows

    @property
    def length(self) -> int:
        """Columns of them."""
        return self.row_length * (self._rows if self.joins_rows else 1)

    @property
    def tokens(self) -> int:
        """Positions of a micro-batch."""
        return self._rows * self.row_length

    @property
    def micro_batches(self) -> int:
        """Those of one rank in one step."""
        return ceil(self._share / self.micro_batch)

    @property
    def masked(self) -> bool:
        """Whether samples are kept apart by a mask. Flash attention does it by their lengths."""
        apart = self.shares_rows or (self.joins_rows and self._rows > 1)
        return apart and self.attention != "flash"

    @property
    def weight_ranks(self) -> int:
        """Over how many ranks the weights are divided."""
        return self.ranks if self.layout.weights else 1

    @property
    def gradient_ranks(self) -> int:
        """Over how many ranks the gradients are divided."""
        return self.ranks if self.layout.gradients else 1

    @property
    def optimizer_ranks(self) -> int:
        """Over how many ranks the optimizer's state is divided."""
        return self.ranks if self.layout.optimizer else 1

    @property
    def _share(self) -> int:
        """Rows of one rank in one step."""
        return ceil(self.global_batch / self.ranks)

    @property
    def _rows(self) -> int:
        return min(self.micro_batch, self._share)
