"""What is trained of a model: all of it, or low-rank adapters on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mftrun.errors import ConfigError
from mftrun.nearest import unknown

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"


@runtime_checkable
class Adapter(Protocol):
    """Chooses the trainable parameters."""

    @property
    def freezes_base(self) -> bool:
        """Whether the model's own weights stay as they are, so that they may be held in 16 bit."""
        ...

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """The model to train; it may be changed in place.

        Args:
            model: As loaded.

        Raises:
            ConfigError: A setting does not fit the model.
        """
        ...


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters; shared ones count once.

    Attributes:
        total: All.
        trainable: Those with a gradient.
    """

    total: int
    trainable: int


@dataclass(frozen=True)
class FullFineTuning:
    """Every parameter is trained."""

    @property
    def freezes_base(self) -> bool:
        """False: weights that are trained are held in 32 bit."""
        return False

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """The model itself, with all of its parameters trainable."""
        result: nn.Module = model.requires_grad_(True)
        return result


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685); the model's own weights are frozen.

    Args:
        r: Rank.
        alpha: Scale of an adapter's output; it is multiplied by alpha / r.
        dropout: Share of an adapter's inputs that is zeroed in training.
        target_modules: `all-linear` for every linear layer but the output head, or names of layers: the last
            components of their paths, or whole paths.
        modules_to_save: Names of layers that are trained in full besides.

    Raises:
        ConfigError: A value outside its range.
    """

    r: int = 96
    alpha: float = 32
    dropout: float = 0.05
    target_modules: str | Sequence[str] = ALL_LINEAR
    modules_to_save: Sequence[str] | None = None

    def __post_init__(self) -> None:
        _require("r", self.r, self.r >= 1, "1 or more")
        _require("alpha", self.alpha, self.alpha > 0, "above 0")
        _require("dropout", self.dropout, 0 <= self.dropout < 1, "in [0, 1)")
        _require(
            "target_modules",
            self.target_modules,
            bool(self.target_modules),
            f"{ALL_LINEAR} or a list of names",
        )

    @property
    def freezes_base(self) -> bool:
        """True: only the adapters are trained."""
        return True

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """A `PeftModel` around `model`.

        Raises:
            ConfigError: A named layer does not exist or cannot be adapted.
        """
        from peft import LoraConfig, TaskType, get_peft_model

        for key, names in (
            ("target_modules", self._named_targets),
            ("modules_to_save", self.modules_to_save or ()),
        ):
            _refuse_missing(f"peft.{key}", names, model)
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(self._named_targets) or ALL_LINEAR,
            modules_to_save=list(self.modules_to_save) if self.modules_to_save else None,
        )
        try:
            result: nn.Module = get_peft_model(model, config)
        except ValueError as error:
            raise ConfigError(
                "peft.target_modules", f"{self.target_modules} cannot be adapted: {error}"
            ) from error
        return result

    @property
    def _named_targets(self) -> Sequence[str]:
        if isinstance(self.target_modules, str):
            return () if self.target_modules == ALL_LINEAR else (self.target_modules,)
        return self.target_modules


def parameter_counts(model: nn.Module) -> ParameterCounts:
    """Counts the parameters of a model."""
    parameters = list(model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return ParameterCounts(sum(p.numel() for p in parameters), trainable)


def _refuse_missing(key: str, names: Sequence[str], model: PreTrainedModel) -> None:
    """Peft complains only when none of the names exists."""
    paths = [path for path, _ in model.named_modules()]
    for name in names:
        if not any(path == name or path.endswith(f".{name}") for path in paths):
            raise ConfigError(key, unknown(name, _linear_layers(model), f"the model has no layer {name!r}"))


def _linear_layers(model: PreTrainedModel) -> set[str]:
    from torch import nn

    return {
        path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, nn.Linear)
    }


def _require(name: str, value: Any, holds: bool, wanted: str) -> None:
    if not holds:
        raise ConfigError(f"peft.{name}", f"must be {wanted}, not {value!r}")
