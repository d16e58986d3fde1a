"""The other methods of peft, by their own configs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError
from mftrun.models.adapters.checks import names_of, refuse_missing
from mftrun.nearest import unknown

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# Each is trained, saved and loaded again by a test. Others may lose gradients or state in silence: those that
# work through the wrapper's own forward, that prune while they train, or that ask for task ids.
_KNOWN = (
    "C3A",
    "DELORA",
    "FOURIERFT",
    "GRALORA",
    "HRA",
    "IA3",
    "LN_TUNING",
    "LOHA",
    "LOKR",
    "MISS",
    "OFT",
    "RANDLORA",
    "ROAD",
    "SHIRA",
    "VBLORA",
    "VERA",
    "WAVEFT",
)


@dataclass(frozen=True)
class PeftMethod:
    """A method of peft that works by weights; the model's own weights are frozen.

    Args:
        config: The method's config in peft, such as `peft.IA3Config`. Its `target_modules` are as those of
            `Lora`, or null for peft's choice for the model's family.

    Raises:
        ConfigError: The method is not known to work here.
    """

    config: Any

    def __post_init__(self) -> None:
        kind = getattr(self.config, "peft_type", None)
        name = str(getattr(kind, "value", kind))
        if name == "LORA":
            raise ConfigError("peft.config", "low-rank adapters have an option of their own: peft=lora")
        if name not in _KNOWN:
            raise ConfigError("peft.config", unknown(name, _KNOWN, f"{name} is not known to work here"))

    @property
    def freezes_base(self) -> bool:
        """True: only the adapters are trained."""
        return True

    @property
    def quantization(self) -> None:
        """None: most of these methods compute with weights as they are."""
        return None

    @property
    def reads_weights(self) -> bool:
        """True: some measure the weights, and which ones differs from one version of peft to the next."""
        return True

    def check(self) -> None:
        """See `Adapter.check`; nothing can be missing."""

    def apply(self, model: PreTrainedModel, *, adapter_dtype: torch.dtype | None = None) -> nn.Module:
        """A `PeftModel` around `model`.

        Raises:
            ConfigError: A named layer does not exist or cannot be adapted.
        """
        from mftrun.models.adapters.injection import inject

        config = self._completed(model)
        refuse_missing("peft.config.modules_to_save", names_of(config.modules_to_save), model)
        excluded = getattr(config, "exclude_modules", None)
        if not isinstance(excluded, str):  # which would be a regular expression
            refuse_missing("peft.config.exclude_modules", sorted(excluded or ()), model)
        result: nn.Module = inject(model, config, adapter_dtype, "peft.config")
        return result

    def save(self, model: Any, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """See `Adapter.save`."""
        model.save_pretrained(folder, state_dict=state_dict)

    def _completed(self, model: nn.Module) -> Any:
        """A copy that peft may change, for causal language models; a single name is no regular expression."""
        from peft import TaskType

        from mftrun.models.adapters.targets import layers_to_adapt

        config = copy.deepcopy(self.config)
        config.task_type = TaskType.CAUSAL_LM
        if config.target_modules is not None:
            config.target_modules = layers_to_adapt(
                config.target_modules, model, "peft.config.target_modules"
            )
        return config
