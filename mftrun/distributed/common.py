"""What strategies have in common, as long as one does not say otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mftrun.distributed.group import join
from mftrun.distributed.machines import Machines
from mftrun.distributed.ranks import Ranks

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from mftrun.models.base import ModelSource


@dataclass(frozen=True)
class CommonStrategy(Machines):
    """Each rank takes its part of the global batch, and loads a model as it is."""

    @property
    def name(self) -> str:
        """See `Strategy.name`."""
        return type(self).__name__.lower()

    @property
    def divides_data(self) -> bool:
        """See `Strategy.divides_data`."""
        return True

    @property
    def needs_files(self) -> bool:
        """See `Strategy.needs_files`."""
        return False

    def join(self, precision: str) -> Ranks:
        """See `Strategy.join`."""
        return join(precision)

    def load(
        self, source: ModelSource, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype, ranks: Ranks
    ) -> PreTrainedModel:
        """See `Strategy.load`: each rank reads all of it."""
        return source.load(tokenizer, dtype)

    def adapter_dtype(self, precision: str) -> torch.dtype | None:
        """See `Strategy.adapter_dtype`: any will do."""
        return None

    def quant_storage(self, precision: str) -> torch.dtype:
        """See `Strategy.quant_storage`: bytes, as bitsandbytes has it."""
        import torch

        return torch.uint8
