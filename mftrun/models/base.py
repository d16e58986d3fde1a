"""What a run asks of a model option."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerFast

HeadKind = Literal["auto", "fused", "chunked", "liger"]
Texts = Callable[[], Iterator[str]]


@runtime_checkable
class ModelSource(Protocol):
    """Where the model and its tokenizer come from."""

    @property
    def head(self) -> HeadKind:
        """How target positions are projected; see `mftrun.models.heads.head_for`."""
        ...

    @property
    def has_files(self) -> bool:
        """Whether the weights lie in files; else they are drawn at random."""
        ...

    @property
    def attention(self) -> str:
        """Implementation of attention."""
        ...

    @property
    def tokenizer_recipe(self) -> Mapping[str, Any] | None:
        """What a tokenizer that is trained on the tasks' texts depends on besides them, as plain values.

        None where the model brings its own.
        """
        ...

    def check(self) -> None:
        """Finds what is wrong early, without reading weights.

        Raises:
            ConfigError: The model cannot be had as configured.
        """
        ...

    def tokenizer(self, texts: Texts, control_tokens: Sequence[str] = ()) -> PreTrainedTokenizerFast:
        """The tokenizer; it has a pad token.

        Args:
            texts: The training texts of all tasks, for a tokenizer that is trained on them.
            control_tokens: Tokens of their own that such a tokenizer must hold.

        Raises:
            ConfigError: There is none, or it lacks what training needs.
        """
        ...

    def skeleton(self, entries: int, dtype: torch.dtype) -> PreTrainedModel:
        """The model without numbers (on the meta device), in training mode: its architecture alone.

        Args:
            entries: Of the tokenizer.
            dtype: Of the weights, unless the option names one.

        Raises:
            ConfigError: The architecture cannot be made.
        """
        ...

    def load(
        self,
        tokenizer: PreTrainedTokenizerFast,
        dtype: torch.dtype,
        quantization: BitsAndBytesConfig | None = None,
        mesh: DeviceMesh | None = None,
    ) -> PreTrainedModel:
        """The model, in training mode on the CPU; quantised, on the device that it is quantised on.

        Args:
            tokenizer: Made by `tokenizer`.
            dtype: Of the weights that are not quantised, unless the option names one.
            quantization: How linear layers hold their weights. Only for models that `has_files`.
            mesh: The ranks among which matrices are divided (tensor parallel); None keeps them whole. Only
                for models that `has_files`.

        Raises:
            ConfigError: It cannot be loaded.
        """
        ...
