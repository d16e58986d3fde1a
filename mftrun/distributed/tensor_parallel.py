"""Tensor parallel: the ranks divide each layer's matrices and compute the same batch together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mftrun.distributed.base import Engine, Sharding
from mftrun.distributed.common import CommonStrategy
from mftrun.distributed.group import autocast, join
from mftrun.distributed.ranks import Ranks
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from mftrun.models.base import ModelSource
    from mftrun.models.with_nll import ModelWithNll
    from mftrun.training.optimizers import OptimizerFactory


class TogetherRanks(Ranks):
    """Ranks that all work on the whole global batch; see `Ranks`.

    What they have is the same but for signals, which reach them at different moments: a sum counts each of
    them as its share of one.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(ranks.accelerator)
        self.index, self.count = 0, 1

    def sum(self, tensor: Tensor) -> Tensor:
        """See `Ranks.sum`."""
        return super().sum(tensor) / self.processes

    def gather(self, value: Any) -> list[Any]:
        """What the first rank has, in the place of all."""
        return super().gather(value)[:1]


@dataclass(frozen=True)
class TensorParallel(CommonStrategy):
    """Tensor parallel on one machine, by the plan that transformers has for the family (arXiv 1909.08053).

    For full fine-tuning. It divides the model, not the data.

    Raises:
        ConfigError: Several machines.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_nodes > 1:
            raise ConfigError(
                "distributed.num_nodes", "tp joins the GPUs of one machine; use distributed=fsdp for several"
            )

    @property
    def name(self) -> str:
        """See `Strategy.name`."""
        return "tp"

    @property
    def sharding(self) -> Sharding:
        """The matrices are divided, and what belongs to them."""
        return Sharding(weights=True, gradients=True, optimizer=True)

    @property
    def divides_data(self) -> bool:
        """False: every rank takes the whole global batch."""
        return False

    @property
    def needs_files(self) -> bool:
        """True: weights are divided while they are read."""
        return True

    def join(self, precision: str) -> Ranks:
        """See `Strategy.join`."""
        return TogetherRanks(join(precision))

    def load(
        self, source: ModelSource, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype, ranks: Ranks
    ) -> PreTrainedModel:
        """See `Strategy.load`: each rank reads its part.

        Raises:
            ConfigError: The family has no plan, or its heads cannot be dealt to so many ranks.
        """
        from torch import distributed
        from torch.distributed.device_mesh import init_device_mesh

        if not distributed.is_initialized():
            return source.load(tokenizer, dtype)
        _check_heads(source.skeleton(len(tokenizer), dtype), distributed.get_world_size())
        mesh = init_device_mesh(ranks.device.type, (distributed.get_world_size(),))
        return source.load(tokenizer, dtype, mesh=mesh)

    def engine(
        self,
        ranks: Ranks,
        model: ModelWithNll,
        optimizer: OptimizerFactory,
        *,
        precision: str,
        max_grad_norm: float | None,
    ) -> Engine:
        """See `Strategy.engine`."""
        from mftrun.distributed.tensor_parallel_engine import TensorParallelEngine

        model.autocast = autocast(ranks.device, precision)
        return TensorParallelEngine(ranks, model, optimizer, max_grad_norm)


def _check_heads(skeleton: Any, ranks: int) -> None:
    """Attention heads are dealt out whole."""
    from mftrun.models.parts import text_config_of

    config = text_config_of(skeleton)
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(config, name, None) or ranks
        if heads % ranks:
            fitting = [str(number) for number in range(1, heads + 1) if heads % number == 0]
            raise ConfigError(
                "distributed.num_processes",
                f"tp deals the model's {heads} heads ({name}) to {ranks} ranks; use {', '.join(fitting)}",
            )
