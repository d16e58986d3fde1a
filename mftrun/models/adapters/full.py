"""Training all of a model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class FullFineTuning:
    """Every parameter is trained."""

    @property
    def freezes_base(self) -> bool:
        """False: weights that are trained are held in 32 bit."""
        return False

    @property
    def quantization(self) -> None:
        """None: quantised weights cannot be trained."""
        return None

    @property
    def reads_weights(self) -> bool:
        """False."""
        return False

    def check(self) -> None:
        """See `Adapter.check`; nothing can be missing."""

    def apply(self, model: PreTrainedModel, *, adapter_dtype: torch.dtype | None = None) -> nn.Module:
        """The model itself, with all of its parameters trainable."""
        from mftrun.models.parts import beside_text

        result: nn.Module = model.requires_grad_(True)
        for path in beside_text(model):  # would get no gradient
            result.get_submodule(path).requires_grad_(False)
        return result

    def save(self, model: Any, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """See `Adapter.save`."""
        plain = model if state_dict is None else _undivided(model)
        plain.save_pretrained(folder, state_dict=state_dict)


def _undivided(model: Any) -> Any:
    """The same architecture without numbers: saving a model that ranks share would wait for all of them."""
    import torch

    config = copy.copy(model.config)
    vars(config).pop("distributed_config", None)  # how transformers knows a model that it has divided
    with torch.device("meta"):
        plain = type(model)(config)
    plain.generation_config = model.generation_config
    return plain
