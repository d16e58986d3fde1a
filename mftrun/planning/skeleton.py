"""Sizes and weights of a model, read off its modules without any of their numbers (torch's meta device)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from mftrun.models.adapters import parameter_counts
from mftrun.models.parts import causal_lm_of, decoder_of, output_head_of, text_config_of
from mftrun.planning.model import Architecture, LowRank, ModelSize, Parameters

CHECKED = ("llama", "mistral", "qwen2", "qwen3")
"""Families whose activations were compared with what autograd saves."""


def measure(model: nn.Module) -> ModelSize:
    """Measures a model.

    Args:
        model: A causal language model, or a peft wrapper around one, with its adapters; not quantised.

    Raises:
        ConfigError: It has no decoder, or no output head.
    """
    causal_lm = causal_lm_of(model)
    layers = _layers(causal_lm)
    linear = _linear_weights(causal_lm)
    adapter = _adapter_weights(model, causal_lm)
    head = output_head_of(causal_lm)
    in_layers = {id(p) for layer in layers for p in layer.parameters()}
    largest = max(layers, key=lambda layer: sum(p.numel() for p in layer.parameters()))
    return ModelSize(
        architecture=_architecture(causal_lm, largest, _unchecked(largest)),
        whole=_count(model.parameters(), linear, adapter),
        layer=_count(largest.parameters(), linear, adapter),
        outside=_count((p for p in model.parameters() if id(p) not in in_layers), linear, adapter),
        largest=max((p.numel() for p in largest.parameters() if p.requires_grad), default=0),
        trains_head=any(p.requires_grad for p in head.parameters()),
        low_rank=_adapters(largest),
        active=_active(model),
    )


def _active(model: nn.Module) -> int | None:
    counts = parameter_counts(model)
    return None if counts.active == counts.total else counts.active


def _layers(causal_lm: Any) -> list[nn.Module]:
    """The decoder's layers: the longest of its lists of modules."""
    decoder = decoder_of(causal_lm)
    lists = [list(module) for module in decoder.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[decoder])


def _linear_weights(causal_lm: Any) -> set[int]:
    """Those that quantisation replaces: of every linear layer but the output head and what adapters bring."""
    head = output_head_of(causal_lm)
    return {
        id(module.weight)
        for path, module in causal_lm.named_modules()
        if isinstance(module, nn.Linear) and module is not head and not _of_adapter(path)
    }


def _adapter_weights(model: nn.Module, causal_lm: Any) -> set[int]:
    if causal_lm is model:
        return set()
    return {id(p) for path, p in model.named_parameters() if _of_adapter(path) or p.requires_grad}


def _of_adapter(path: str) -> bool:
    """Peft keeps its modules in dictionaries named lora_A and so on, with one entry for each adapter."""
    return any(part.startswith(("lora_", "modules_to_save")) for part in path.split("."))


def _count(parameters: Iterable[nn.Parameter], linear: set[int], adapter: set[int]) -> Parameters:
    sums = {"linear": 0, "other": 0, "adapter": 0}
    trained = dict(sums)
    for parameter in parameters:
        kind = _kind(parameter, linear, adapter)
        sums[kind] += parameter.numel()
        trained[kind] += parameter.numel() if parameter.requires_grad else 0
    return Parameters(**sums, **{f"trained_{kind}": number for kind, number in trained.items()})


def _kind(parameter: nn.Parameter, linear: set[int], adapter: set[int]) -> str:
    if id(parameter) in adapter:
        return "adapter"
    return "linear" if id(parameter) in linear else "other"


def _adapters(layer: nn.Module) -> LowRank | None:
    """The adapters of a layer; those that are no pairs of linear layers count as such without a rank."""
    adapted: list[Any] = [module for module in layer.modules() if hasattr(module, "base_layer")]
    if not adapted:
        return None
    stacks = [module for module in adapted if hasattr(module, "get_param")]
    layers = [module for module in adapted if not hasattr(module, "get_param")]
    return LowRank(
        inputs=sum(getattr(module, "in_features", 0) for module in layers),
        ranks=sum(linear.out_features for module in layers for linear in _first_factors(module)),
        dropout=any(_drops(module) for module in layers),
        merged=sum(module.get_param().numel() for module in stacks),
    )


def _first_factors(module: Any) -> list[nn.Linear]:
    return [linear for linear in getattr(module, "lora_A", {}).values() if isinstance(linear, nn.Linear)]


def _drops(module: Any) -> bool:
    layers = getattr(module, "lora_dropout", {}).values()
    return any(isinstance(one, nn.Dropout) and one.p > 0 for one in layers)


def _unchecked(layer: nn.Module) -> str | None:
    """Why the activations of a layer's adapters are rough."""
    adapted: list[Any] = [module for module in layer.modules() if hasattr(module, "base_layer")]
    if any(len(getattr(module, "lora_magnitude_vector", ())) for module in adapted):
        return "adapters with magnitudes (DoRA) are taken for those without"
    if any(not _first_factors(module) for module in adapted):
        return "adapters of this kind are taken to keep the inputs of their layers"
    return None


def _architecture(causal_lm: Any, layer: nn.Module, adapters: str | None) -> Architecture:
    config = text_config_of(causal_lm)
    heads = int(config.num_attention_heads)
    names = {path.rpartition(".")[2] for path, _ in layer.named_modules()}
    return Architecture(
        family=str(config.model_type),
        hidden=int(config.hidden_size),
        inner=_inner(config),
        layers=len(_layers(causal_lm)),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        vocab=int(config.vocab_size),
        gated=bool(names & {"gate_proj", "gate_up_proj", "experts"}),
        head_norms="q_norm" in names,
        tied=output_head_of(causal_lm).weight is causal_lm.get_input_embeddings().weight,
        window=_window(config),
        rough=_rough(config, adapters),
    )


def _inner(config: Any) -> int:
    """Width of the feed-forward part that one token goes through."""
    dense = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    width = int(dense or 4 * config.hidden_size)
    experts = getattr(config, "num_experts_per_tok", None)
    if not experts:
        return width
    routed = int(getattr(config, "moe_intermediate_size", None) or width) * int(experts)
    return routed + int(getattr(config, "shared_expert_intermediate_size", None) or 0)


def _window(config: Any) -> int | None:
    """Sliding attention needs a mask once rows are longer than its window."""
    if getattr(config, "use_sliding_window", True) is False:
        return None
    window = getattr(config, "sliding_window", None)
    return None if window is None else int(window)


def _rough(config: Any, adapters: str | None) -> str | None:
    family = config.model_type
    if getattr(config, "num_experts_per_tok", None):
        return f"{family} has experts: those that see a token are taken for one wide feed-forward part"
    if family not in CHECKED:
        return f"{family} is taken for a Llama of its sizes"
    return (
        None if adapters is None else f"{adapters} are taken to keep as much as low-rank ones do, or nothing"
    )
