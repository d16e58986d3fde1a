"""Low-rank adapters, in the variants of them that end up as plain ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError
from mftrun.models.adapters.checks import ALL_LINEAR, ATTENTION, refuse_missing, require
from mftrun.models.quantization import Quantization

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

_INITS = ("default", "gaussian", "orthogonal", "olora", "pissa")
_INITS_OF_EXPERTS = ("default", "gaussian")
_RANDOMISED_PISSA = re.compile(r"pissa_niter_[1-9]\d*")


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685); the model's own weights are frozen.

    Args:
        r: Rank.
        alpha: Scale of an adapter's output; it is multiplied by alpha / r.
        dropout: Share of an adapter's inputs that is zeroed in training.
        target_modules: `all-linear` for every linear layer but the output head and routers, `attention` for
            those of the attention blocks, or names of layers: the last components of their paths, or whole
            paths.
        experts: Whether the stacked weights of experts have adapters, too: one of rank r for each expert.
        modules_to_save: Names of layers that are trained in full besides.
        init: What the factors A and B start from. `default`, `gaussian`: A random, B zero; `orthogonal`: both
            random, their product zero; `pissa`: the weight's largest singular values (arXiv 2404.02948), with
            `pissa_niter_N` by N rounds of a randomised, much faster decomposition; `olora`: its QR
            decomposition (arXiv 2406.01775). The last three take what they start from out of the frozen
            weight.
        use_rslora: Whether outputs are multiplied by alpha / sqrt(r) instead (arXiv 2312.03732).
        use_dora: Whether each row's length is trained apart from its direction (arXiv 2402.09353).
        quantization: How the model's own weights are held; None as they were loaded.

    Raises:
        ConfigError: A value outside its range, or values that exclude each other.
    """

    r: int = 96
    alpha: float = 32
    dropout: float = 0.05
    target_modules: str | Sequence[str] = ALL_LINEAR
    experts: bool = False
    modules_to_save: Sequence[str] | None = None
    init: str = "default"
    use_rslora: bool = False
    use_dora: bool = False
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        require("r", self.r, self.r >= 1, "1 or more")
        require("alpha", self.alpha, self.alpha > 0, "above 0")
        require("dropout", self.dropout, 0 <= self.dropout < 1, "in [0, 1)")
        targets = self.target_modules
        require("target_modules", targets, bool(targets), f"{ALL_LINEAR}, {ATTENTION} or a list of names")
        known = self.init in _INITS or bool(_RANDOMISED_PISSA.fullmatch(self.init))
        require("init", self.init, known, f"one of {', '.join(_INITS)} or pissa_niter_N")
        self._refuse_excluding()

    @property
    def freezes_base(self) -> bool:
        """True: only the adapters are trained."""
        return True

    @property
    def reads_weights(self) -> bool:
        """True where factors are taken out of the weights, or DoRA measures their rows."""
        return self._moves_base or self.use_dora

    def check(self) -> None:
        """See `Adapter.check`."""
        if self.quantization is not None:
            self.quantization.check()

    def apply(self, model: PreTrainedModel, *, adapter_dtype: torch.dtype | None = None) -> nn.Module:
        """A `PeftModel` around `model`.

        Raises:
            ConfigError: A named layer does not exist or cannot be adapted.
        """
        from mftrun.models.adapters.conversion import remember_factors
        from mftrun.models.adapters.injection import inject

        refuse_missing("peft.modules_to_save", self.modules_to_save or (), model)
        result: nn.Module = inject(model, self._config(model), adapter_dtype, "peft.target_modules")
        if self._moves_base:
            remember_factors(result)
        return result

    def save(self, model: Any, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """See `Adapter.save`; adapters whose start was taken out of the weights are saved with rank 2 r."""
        from mftrun.models.adapters.conversion import save_for_first_weights

        if self._moves_base:
            save_for_first_weights(model, folder, state_dict)
        else:
            model.save_pretrained(folder, state_dict=state_dict)

    @property
    def _moves_base(self) -> bool:
        return self.init.startswith(("pissa", "olora"))

    def _refuse_excluding(self) -> None:
        if self.experts:
            self._refuse_for_experts()
        if self.use_dora and self.quantization is not None and self.quantization.bits > 4:
            raise ConfigError(
                "peft.use_dora", "cannot measure 8-bit weights; use peft=qdora, whose weights have 4 bit"
            )
        if self._moves_base and self.use_dora:
            raise ConfigError("peft.use_dora", f"does not work with init={self.init}; use init=default")
        if self._moves_base and self.quantization is not None:
            raise ConfigError(
                "peft.init",
                f"{self.init} changes the frozen weights, and quantising them again would not give the saved "
                "adapter its weights back; use init=default, or quantization=null",
            )

    def _refuse_for_experts(self) -> None:
        """Peft adds B A to a whole stack of weights: nothing between A and its inputs, nothing per row."""
        if self.dropout > 0:
            raise ConfigError("peft.dropout", "adapters on experts cannot have dropout; set it to 0")
        if self.use_dora:
            raise ConfigError("peft.use_dora", "does not work on experts; use peft.experts=false")
        if self.init not in _INITS_OF_EXPERTS:
            known = " or ".join(_INITS_OF_EXPERTS)
            raise ConfigError("peft.init", f"{self.init} does not work on experts; use {known}")

    def _config(self, model: nn.Module) -> Any:
        from peft import LoraConfig, TaskType

        from mftrun.models.adapters.targets import expert_stacks_to_adapt, low_rank_layers

        return LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=low_rank_layers(self.target_modules, model, "peft.target_modules"),
            target_parameters=expert_stacks_to_adapt(model, "peft.experts") if self.experts else None,
            modules_to_save=list(self.modules_to_save) if self.modules_to_save else None,
            init_lora_weights=True if self.init == "default" else self.init,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
        )
