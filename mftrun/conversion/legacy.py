"""What the legacy families have in common: reading their config.json strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mftrun.conversion.rules import Rule
    from mftrun.conversion.source_tokenizer import TokenizerFiles

ROTARY_BUFFERS = r"(.*\.)?(rotary_emb|rotary_pos_emb)\.inv_freq"
"""Tensors that old code saved though they follow from config.json."""


@dataclass(frozen=True)
class Legacy:
    """A legacy architecture.

    Args:
        name: What its checkpoints are called in messages.
        config: Native config.json of a legacy one; raises `ConfigError` where there is no equal.
        rules: What becomes of its tensors, given the legacy config.
        ignored: Pattern of tensors that carry nothing.
        tokenizer: Makes the fast tokenizer, with its chat template, given the legacy config.
        notes: What a user should know of the checkpoint that was given.
    """

    name: str
    config: Callable[[Mapping[str, Any]], dict[str, Any]]
    rules: Callable[[Mapping[str, Any]], list[Rule]]
    tokenizer: Callable[[TokenizerFiles, Mapping[str, Any]], PreTrainedTokenizerFast]
    ignored: str = ROTARY_BUFFERS
    notes: Callable[[Mapping[str, Any]], Sequence[str]] = lambda config: ()


def required(config: Mapping[str, Any], key: str) -> Any:
    """A value that the architecture cannot be known without.

    Raises:
        ConfigError: config.json lacks it.
    """
    if (value := config.get(key)) is None:
        raise ConfigError("source", f"its config.json lacks {key}, which a {_type(config)} model has")
    return value


def insist(config: Mapping[str, Any], values: Mapping[str, Any], why: str) -> None:
    """Refuses what the native class cannot do.

    Args:
        config: The legacy config.
        values: The only value that each key may have; an absent or null key counts as that value.
        why: What lacks it.

    Raises:
        ConfigError: A key has another value.
    """
    for key, only in values.items():
        if (found := config.get(key)) is not None and found != only:
            raise ConfigError(
                "source",
                f"its config.json says {key}: {found}; {why}, which knows {only} alone. Train it with its "
                "own code: model=auto model.trust_remote_code=true",
            )


def kept(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Those keys that are there and not null, as they are."""
    return {key: config[key] for key in keys if config.get(key) is not None}


def rope(config: Mapping[str, Any], theta: float, scalings: Sequence[str] = ()) -> dict[str, Any]:
    """Rotary settings for the native config.

    Args:
        config: The legacy config.
        theta: Base of the angles.
        scalings: Kinds of `rope_scaling` that the native class computes as the legacy code did.

    Raises:
        ConfigError: The scaling is of another kind.
    """
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": float(theta)}
    if scaling := config.get("rope_scaling"):
        kind = scaling.get("type", scaling.get("rope_type"))
        if kind not in scalings:
            raise ConfigError("source", f"its rope_scaling is {kind}; the native class knows no such one")
        parameters |= {"rope_type": kind, "factor": float(scaling["factor"])}
    return {"rope_parameters": parameters}


def tied(config: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding."""
    return bool(config.get("tie_word_embeddings", False))


def _type(config: Mapping[str, Any]) -> str:
    return str(config.get("model_type"))


def as_llama(
    config: Mapping[str, Any], groups: int, rope_types: tuple[str, ...] = (), *, bias: bool = False
) -> dict[str, Any]:
    """The native config of an architecture that is Llama's under other names.

    Args:
        config: The legacy config.
        groups: Key-value heads.
        rope_types: Kinds of rotary scaling that the original has.
        bias: Whether the projections of attention have biases.

    Raises:
        ConfigError: A key is missing, or its value means nothing to Llama.
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": config.get("hidden_act", "silu"),
        "hidden_size": required(config, "hidden_size"),
        "intermediate_size": required(config, "intermediate_size"),
        "num_attention_heads": required(config, "num_attention_heads"),
        "num_key_value_heads": groups,
        "num_hidden_layers": required(config, "num_hidden_layers"),
        "vocab_size": required(config, "vocab_size"),
        "max_position_embeddings": required(config, "max_position_embeddings"),
        "rms_norm_eps": required(config, "rms_norm_eps"),
        "attention_bias": bias,
        "tie_word_embeddings": tied(config),
        **rope(config, config.get("rope_theta", 10000), rope_types),
        **kept(config, "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id"),
    }
