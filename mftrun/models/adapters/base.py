"""What a run asks of an adapter option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from mftrun.models.quantization import Quantization


@runtime_checkable
class Adapter(Protocol):
    """Chooses the trainable parameters."""

    @property
    def freezes_base(self) -> bool:
        """Whether the model's own weights stay as they are, so that they may be held in 16 bit."""
        ...

    @property
    def quantization(self) -> Quantization | None:
        """How the model's own weights are held; None as they were loaded."""
        ...

    @property
    def reads_weights(self) -> bool:
        """Whether `apply` computes from the values of weights, which then must be real and whole."""
        ...

    def check(self) -> None:
        """Finds what is wrong early, without a model.

        Raises:
            ConfigError: A library is not installed.
        """
        ...

    def apply(self, model: PreTrainedModel, *, adapter_dtype: torch.dtype | None = None) -> nn.Module:
        """The model to train; it may be changed in place.

        The same weights and torch seed give the same result, which is how a resumed run gets it again.

        Args:
            model: As loaded.
            adapter_dtype: Dtype of the adapters' weights, for strategies that need one dtype throughout; None
                lets them be in 32 bit, whatever the model is in.

        Raises:
            ConfigError: A setting does not fit the model.
        """
        ...

    def save(self, model: Any, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Saves what was trained as a plain folder: of transformers, or of peft for the model as loaded.

        Args:
            model: What `apply` returned, trained.
            folder: Where to; it exists.
            state_dict: The model's weights, gathered from all ranks; None takes those of `model`.
        """
        ...


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters; shared ones count once.

    Attributes:
        total: All.
        trainable: Those with a gradient.
        active: Those that one token goes through: of experts, the ones that it chooses. All without experts.
    """

    total: int
    trainable: int
    active: int

    def __str__(self) -> str:
        """For a log: trained and all, and with experts how many of them a token goes through."""
        trained = f"{self.trainable:,} of {self.total:,} parameters are trained"
        active = f"; {self.active:,} of {self.total:,} are active per token"
        return trained if self.active == self.total else trained + active


def parameter_counts(model: nn.Module) -> ParameterCounts:
    """Counts the parameters of a model; a packed 4-bit weight counts as the weights in it."""
    from mftrun.models.experts import active_share, expert_weights

    total = sum(_size(parameter) for parameter in model.parameters())
    trained = sum(_size(parameter) for parameter in model.parameters() if parameter.requires_grad)
    of_experts = sum(_size(parameter) for _, parameter in expert_weights(model))
    return ParameterCounts(total, trained, total - round(of_experts * (1 - active_share(model))))


def _size(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        return int(state.shape.numel())
    # ZeRO-3 leaves nothing where a parameter was but its size.
    return int(getattr(parameter, "ds_numel", parameter.numel()))
