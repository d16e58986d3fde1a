"""The parts of a causal language model: the decoder that makes hidden states, and the output head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def causal_lm_of(model: nn.Module) -> Any:
    """The causal language model itself, inside a peft wrapper or not.

    Args:
        model: A `PreTrainedModel`, or a `PeftModel` around one.

    Raises:
        ConfigError: The adapter works by prompts, which go through the wrapper's own forward.
    """
    if not hasattr(model, "get_base_model"):
        return model
    if getattr(model.active_peft_config, "is_prompt_learning", False):
        raise ConfigError(
            "peft", "prompt-learning adapters cannot be trained here; use peft=lora or peft=none"
        )
    return model.get_base_model()  # type: ignore[operator]


def decoder_of(causal_lm: Any) -> nn.Module:
    """The part that turns token ids into hidden states.

    Raises:
        ConfigError: The model has no such part.
    """
    decoder = causal_lm.get_decoder()
    if decoder is None or decoder is causal_lm:
        raise ConfigError("model", f"{_name(causal_lm)} has no separate decoder and cannot be trained here")
    return decoder  # type: ignore[no-any-return]


def decode(causal_lm: Any, input_ids: Tensor, position_ids: Tensor, *, router_logits: bool = False) -> Any:
    """Runs the decoder so that packed segments stay apart: without attention mask and without cache.

    Args:
        causal_lm: The model.
        input_ids: int64 [rows, length].
        position_ids: int64 [rows, length], from 0 in every segment.
        router_logits: Whether the output shall hold them.

    Returns:
        The decoder's output; its first item is [rows, length, hidden size], or the same with all rows in one.
    """
    if "flash" in str(causal_lm.config._attn_implementation):
        # Flash attention keeps segments apart by their positions only when there is a single row.
        input_ids, position_ids = input_ids.reshape(1, -1), position_ids.reshape(1, -1)
    extra = {"output_router_logits": True} if router_logits else {}
    return decoder_of(causal_lm)(
        input_ids=input_ids, attention_mask=None, position_ids=position_ids, use_cache=False, **extra
    )


def output_head_of(causal_lm: Any) -> nn.Module:
    """The part that turns hidden states into logits.

    Raises:
        ConfigError: The model has no such part.
    """
    head = causal_lm.get_output_embeddings()
    if head is None:
        raise ConfigError(
            "model", f"{_name(causal_lm)} has no output head: it is not a causal language model"
        )
    return head  # type: ignore[no-any-return]


def beside_text(causal_lm: Any) -> list[str]:
    """Paths of the modules that text does not go through: the towers of models that also see or hear.

    They get no gradient, and adapters on them would stay as they started.

    Args:
        causal_lm: The model.

    Returns:
        The outermost ones; none in models of text alone.
    """
    parts = (decoder_of(causal_lm), output_head_of(causal_lm))
    reached = {id(parameter) for part in parts for parameter in part.parameters()}
    found: list[str] = []
    for path, module in causal_lm.named_modules():
        own = [id(parameter) for parameter in module.parameters()]
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if own and reached.isdisjoint(own) and not inside:
            found.append(path)
    return found


def text_config_of(causal_lm: Any) -> PretrainedConfig:
    """The configuration of the language part, which models of several modalities nest."""
    return causal_lm.config.get_text_config(decoder=True)


def _name(causal_lm: Any) -> str:
    return f"{type(causal_lm).__name__} (model_type {causal_lm.config.model_type!r})"
