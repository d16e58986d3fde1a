"""Where an adapter's tensors go: into low-rank layers, or in place of the base's parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mftrun.errors import ConfigError
from mftrun.merging.adapter import SavedAdapter
from mftrun.merging.base import BaseModel
from mftrun.merging.ends import ends_of, tied_ends

PREFIX = "base_model.model."
_NAME = "default"
_BASE = ".base_layer"
_KEPT_INITS = (True, False, "gaussian", "orthogonal", "eva")
_LAYERS = ("Linear", "Embedding", "ParamWrapper")
# Settings of low-rank adapters that make them more than s B A, or that change other layers.
_BEYOND = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_ga_config",
    "megatron_config",
    "monteclora_config",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)


@dataclass(frozen=True)
class LowRankLayer:
    """A layer of the base with an adapter on it.

    Attributes:
        path: In the `PeftModel`.
        layer: The adapter's layer, without numbers.
        factors: Its parameters, as named in it → their tensors' names in the adapter's file.
        owner: Path of the base's module, as the base calls it.
        changes: Parameters of that module which the adapter changes.
    """

    path: str
    layer: Any
    factors: Mapping[str, str]
    owner: str
    changes: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The base's names of the parameters that it changes."""
        return tuple(f"{self.owner}.{name}" for name in self.changes)


@dataclass(frozen=True)
class Placement:
    """An adapter on its base, without numbers.

    Attributes:
        model: A `PeftModel`; what it computes with is filled in as it is needed.
        layers: The low-rank layers.
        whole: The base's parameters that the adapter holds in full → their tensors' names in its file.
        entries: Rows of the embeddings, where the adapter brings its own; None as the base has.
    """

    model: Any
    layers: tuple[LowRankLayer, ...]
    whole: Mapping[str, str]
    entries: int | None


def why_not_streamed(adapter: SavedAdapter) -> str | None:
    """Why an adapter cannot be merged tensor by tensor, by its settings; None if it can."""
    if adapter.kind != "LORA":
        return f"adapters of the kind {adapter.kind} work on layers as a whole"
    settings = adapter.settings
    if (init := settings.get("init_lora_weights", True)) not in _KEPT_INITS:
        return f"init_lora_weights={init} changes the base before the adapter is added"
    set_ = [name for name in _BEYOND if settings.get(name)]
    return f"{', '.join(set_)}: more than low-rank adapters" if set_ else None


def place(adapter: SavedAdapter, base: BaseModel) -> Placement | None:
    """Puts an adapter on its base, without numbers, and sees that every tensor fits.

    Returns:
        None where a layer is of a kind that only the whole model can merge.

    Raises:
        ConfigError: The base lacks what is adapted, a tensor has another shape, or one is missing or unknown.
    """
    from peft import get_peft_model

    entries = entries_of(adapter, base)
    skeleton = base.skeleton(entries)
    parameters = {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}
    ends = tied_ends(skeleton)  # before peft wraps them
    config = adapter.peft_config()
    config.base_model_name_or_path = skeleton.name_or_path  # peft would warn that it was another
    try:
        model = get_peft_model(skeleton, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError("adapter", f"does not fit its base {base.folder}: {error}") from error
    layers = tuple(_layers(model, adapter))
    if any(type(one.layer).__name__ not in _LAYERS for one in layers):
        return None
    whole = {key: name for name in adapter.kinds if (key := bare(name)) in parameters}
    whole |= _of_tied(whole, ends, adapter)
    placed = Placement(model.eval(), layers, whole, entries)
    _check_shapes(placed, adapter, base, parameters)
    _check_names(placed, adapter)
    return placed


def bare(name: str) -> str:
    """A parameter's name in a `PeftModel`, or in its file, as the base has it."""
    return name.removeprefix(PREFIX).replace(_BASE, "")


def _of_tied(whole: Mapping[str, str], ends: tuple[str, str] | None, adapter: SavedAdapter) -> dict[str, str]:
    """Embeddings that are saved are the output head's too, where both are one; unless peft trained a copy."""
    copied = adapter.settings.get("modules_to_save") or ()
    found = [key for key in ends or () if key in whole and key.split(".")[-2] not in copied]
    return (
        dict.fromkeys(ends, whole[found[0]])
        if ends and len(found) == 1 and len(set(ends) & set(whole)) == 1
        else {}
    )


def entries_of(adapter: SavedAdapter, base: BaseModel) -> int | None:
    """Rows of the embeddings that an adapter brings: those that grew with the tokenizer are saved with it.

    Args:
        adapter: The adapter.
        base: Its base.
    """
    ends = ends_of(base.names.model)
    found = {kind.shape[0] for name, kind in adapter.kinds.items() if bare(name) in ends}
    return found.pop() if len(found) == 1 else None


def _layers(model: Any, adapter: SavedAdapter) -> Iterator[LowRankLayer]:
    from peft.tuners.lora.layer import LoraLayer

    for path, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        own = [name for name, _ in layer.named_parameters() if not name.startswith("base_layer.")]
        names = {name: _saved_name(path, name, adapter) for name in own}
        yield LowRankLayer(path, layer, names, bare(path), _changes(layer))


def _saved_name(path: str, name: str, adapter: SavedAdapter) -> str:
    """Peft leaves the adapter's name out, and of magnitudes the last part, too."""
    saved = f"{path}.{name.replace(f'.{_NAME}', '')}"
    short = saved.removesuffix(".weight")
    return short if short in adapter.kinds else saved


def _changes(layer: Any) -> tuple[str, ...]:
    weight = getattr(layer, "parameter_name", "weight")
    return (weight, "bias") if layer.lora_bias.get(_NAME) else (weight,)


def _check_shapes(
    placed: Placement, adapter: SavedAdapter, base: BaseModel, parameters: Mapping[str, tuple[int, ...]]
) -> None:
    wanted = {name: parameters[key] for key, name in placed.whole.items()}
    for one in placed.layers:
        shapes = {name: tuple(value.shape) for name, value in one.layer.named_parameters()}
        wanted |= {saved: shapes[name] for name, saved in one.factors.items()}
    for name, shape in wanted.items():
        kind = adapter.kinds.get(name)
        if kind is None:
            raise ConfigError(
                "adapter", f"{adapter.folder} lacks {name}, which {base.folder} needs; {_CAUSE}"
            )
        if kind.shape != shape:
            raise ConfigError(
                "adapter",
                f"{name} has the shape {list(kind.shape)}, and rank and base ({base.folder}) ask for "
                f"{list(shape)}; {_CAUSE}",
            )


def _check_names(placed: Placement, adapter: SavedAdapter) -> None:
    known = set(placed.whole.values()) | {name for one in placed.layers for name in one.factors.values()}
    unknown = [name for name in adapter.kinds if name not in known]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        shown = ", ".join(unknown[:3]) + more
        raise ConfigError("adapter", f"holds tensors that this base has no place for: {shown}; {_CAUSE}")


_CAUSE = "another base or another adapter_config.json than it was trained with"
