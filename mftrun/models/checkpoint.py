"""What lies in a model's folder, or on the hub: its config.json, and the code it may bring."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError
from mftrun.models.families import LEGACY_TYPES, Family, families_of
from mftrun.weight_files.hub import is_hub_id

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_META = "__metadata__"


def read_config(where: str, revision: str | None) -> Mapping[str, Any]:
    """Contents of config.json, from the folder or from the hub.

    Args:
        where: Folder or hub id.
        revision: Branch, tag or commit on the hub.

    Raises:
        ConfigError: There is none, or it names no architecture.
    """
    if not where:
        raise ConfigError("model.path", "is empty; give a folder, or owner/name on the hub")
    config = _read_local(Path(where)) if Path(where).is_dir() else _read_hub(where, revision)
    if config.get("model_type") is None:
        raise ConfigError("model.path", f"config.json of {where} names no model_type")
    return config


def check_family(config: Mapping[str, Any], path: str, model_types: Sequence[str] | None) -> None:
    """Refuses a checkpoint of another architecture than an option is for.

    Args:
        config: Contents of its config.json.
        path: Where it was found.
        model_types: What the option takes; None takes any.

    Raises:
        ConfigError: Names the options that are for it.
    """
    found, origin = config["model_type"], config.get("converted_from")
    if model_types is None or (found in model_types and _origin_fits(found, origin, model_types)):
        return
    expected = " or ".join(model_types)
    held = f"a {found} model" + ("" if origin is None else f" converted from {origin}")
    raise ConfigError("model.path", f"{path} holds {held}, not {expected}; use {_options(found, origin)}")


def check_native(config: Mapping[str, Any], path: str) -> None:
    """Refuses an architecture that transformers has no class for.

    Args:
        config: Contents of config.json.
        path: Where it was found.

    Raises:
        ConfigError: Says how to convert it, where it can be.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found = config["model_type"]
    if found in LEGACY_TYPES:
        raise ConfigError(
            "model.path",
            f"{path} holds a {found} model as it was published, which transformers has no class for; "
            f"convert it, python -m mftrun job=convert source={path} output=DIR, and use {_options(found)} "
            "with model.path=DIR (or let the code that came with it run: model.trust_remote_code=true)",
        )
    if found not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConfigError(
            "model.path",
            f"transformers has no causal language model of type {found!r} ({path}); if its folder "
            "brings its own code and you trust it, set model.trust_remote_code=true",
        )


def check_not_quantized(config: Mapping[str, Any], path: str) -> None:
    """Refuses weights that are quantised: transformers would keep to that, whatever was asked for.

    Args:
        config: Contents of config.json.
        path: Where it was found.

    Raises:
        ConfigError: They are.
    """
    if (found := config.get("quantization_config")) is not None:
        method = found.get("quant_method", "an unknown method")
        raise ConfigError(
            "model.path",
            f"{path} holds weights that are quantised already ({method}); give the model in 16 or "
            "32 bit: peft=qlora quantises it while it loads",
        )


def check_weights(where: str) -> None:
    """Refuses a folder without weights, or with a file of weights that is not whole.

    Args:
        where: Folder or hub id.

    Raises:
        ConfigError: It is.
    """
    folder = Path(where)
    if not folder.is_dir():
        return
    if not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        raise ConfigError("model.path", f"{where} holds no weights ({' or '.join(_WEIGHTS)})")
    for file in sorted(folder.glob(_WEIGHTS[0])):
        if not _is_whole(file):
            raise ConfigError("model.path", f"{file} is cut off or damaged; get the file again")


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as it says: the header's length in 8 bytes, JSON, the data."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        rest = file.stat().st_size - 8 - length
        if rest < 0:
            return False
        try:
            entries = json.loads(opened.read(length))
            return rest == max(
                (entry["data_offsets"][1] for name, entry in entries.items() if name != _META), default=0
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return False


def native_type(config: Mapping[str, Any]) -> str:
    """The architecture that a checkpoint has, or will have once it is converted."""
    found = config["model_type"]
    return str(_converted(config)["model_type"] if found in LEGACY_TYPES else found)


def architecture_of(
    config: Mapping[str, Any], where: str, revision: str | None, trust_remote_code: bool
) -> PretrainedConfig:
    """The configuration that a model is made from; of a checkpoint that is yet to be converted, the new one.

    Args:
        config: Contents of config.json.
        where: Folder or hub id.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether code in the model's folder may run; then there is nothing to convert.

    Raises:
        OSError: The hub does not give it.
        ValueError: Transformers does not know the architecture.
    """
    from transformers import AutoConfig

    if config["model_type"] in LEGACY_TYPES and not trust_remote_code:
        return AutoConfig.for_model(**_converted(config))
    return AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=trust_remote_code)


def brings_model_code(config: Mapping[str, Any]) -> bool:
    """Whether the model's own code, once trusted, takes the place of transformers' class."""
    return "AutoModelForCausalLM" in (config.get("auto_map") or {})


def describe_code(config: Mapping[str, Any], where: str, revision: str | None) -> str:
    """What runs when the code that came with a model is trusted, for a warning.

    Args:
        config: Contents of config.json.
        where: Folder or hub id.
        revision: Branch, tag or commit on the hub.
    """
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    entries = {**_auto_map(config), **_auto_map(get_tokenizer_config(where, revision=revision))}
    named = sorted({_file(entry) for entries_of in entries.values() for entry in _flat(entries_of)})
    if not named:
        return f"model.trust_remote_code=true: {where} names no code of its own, so none runs"
    version = f"revision {revision}" if revision else "its newest revision; model.revision=COMMIT pins one"
    origin = f"the folder {where}" if Path(where).is_dir() else f"{where} on the hub ({version})"
    return f"model.trust_remote_code=true: Python code from {origin} runs here, unchecked: {', '.join(named)}"


def _converted(config: Mapping[str, Any]) -> dict[str, Any]:
    from mftrun.conversion import native_config

    native = native_config(config)
    assert native is not None, "the list of families and the conversion know the same architectures"
    return native


def _read_hub(where: str, revision: str | None) -> Mapping[str, Any]:
    if not is_hub_id(where):
        raise ConfigError(
            "model.path", f"{where} is not a folder; give one with config.json, or owner/name on the hub"
        )
    from transformers import PretrainedConfig

    try:
        config: Mapping[str, Any] = PretrainedConfig.get_config_dict(where, revision=revision)[0]
    except (OSError, ValueError) as error:
        message = f"{where} is neither a local folder nor a model that the hub or its cache gives: {error}"
        raise ConfigError("model.path", message) from error
    return config


def _read_local(folder: Path) -> Mapping[str, Any]:
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise ConfigError(
            "model.path", f"{folder} holds an adapter, not a model; give the folder of its base model"
        )
    try:
        content: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "model.path", f"{folder} holds no config.json; give the folder of a model"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError("model.path", f"{folder / 'config.json'} cannot be read: {error}") from error
    return content


def _origin_fits(found: str, origin: str | None, model_types: Sequence[str]) -> bool:
    """An option for unconverted checkpoints takes those converted from them, and no others of the class."""
    legacy = LEGACY_TYPES.intersection(model_types)
    return not legacy or found in legacy or origin in legacy


def _options(model_type: str, origin: str | None = None) -> str:
    """The options that take a checkpoint, as one would write them; `auto` takes any."""
    families: tuple[Family, ...] = families_of(model_type, origin)
    names = [f"model={family.option}" for family in families] or ["model=auto"]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _auto_map(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("auto_map") or {}
    return found if isinstance(found, Mapping) else {"AutoTokenizer": found}


def _flat(entries: Any) -> Iterator[str]:
    """One class, or a list of a slow and a fast tokenizer, either of which may be missing."""
    for entry in entries if isinstance(entries, list) else [entries]:
        if entry is not None:
            yield str(entry)


def _file(entry: str) -> str:
    """``owner/name--module.Class`` lies in another repository than the model."""
    repository, _, place = entry.rpartition("--")
    module, _, name = place.rpartition(".")
    return f"{module.replace('.', '/')}.py ({name})" + (f" of {repository}" if repository else "")
