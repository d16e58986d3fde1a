"""A model and its adapter, ready to generate on one device."""

from __future__ import annotations

import logging
import sys
import warnings
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError
from mftrun.models.pretrained import Pretrained
from mftrun.models.quantization import EightBit, FourBit

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from mftrun.generation.base import Weights
    from mftrun.generation.place import Place

_log = logging.getLogger(__name__)

_QUANTIZATIONS = MappingProxyType({"4bit": FourBit, "8bit": EightBit})
# What the loading of models calls a key, and what it is called here.
_KEYS = MappingProxyType(
    {
        "model.path": "path",
        "model.attention": "job.backend.attention",
        "model.trust_remote_code": "job.trust_remote_code",
        "peft.quantization": "job.quantization",
    }
)


def load(
    place: Place,
    tokenizer: PreTrainedTokenizerFast,
    weights: Weights,
    device: torch.device,
    attention: str,
    *,
    merge: bool = False,
) -> Any:
    """Loads a model, with its adapter on it, in evaluation mode.

    Args:
        place: Where both lie.
        tokenizer: The one that they are used with; embeddings grow where it has.
        weights: How weights are held.
        device: Where to.
        attention: Implementation of attention; `auto` takes the loader's choice.
        merge: Whether the adapter is folded into the weights.

    Raises:
        ConfigError: It cannot be loaded so.
    """
    if merge and weights.quantization is not None:
        raise ConfigError(
            "job.backend.merge",
            f"cannot fold an adapter into weights of {weights.quantization}; leave one out",
        )
    if merge and place.adapter is None:
        raise ConfigError(
            "job.backend.merge", f"{place.model} is a whole model: there is no adapter to fold in"
        )
    _quiet_bars()
    model = _base(place, tokenizer, weights, device, attention)
    if place.adapter is not None:
        model = _with_adapter(model, place)
        model = model.merge_and_unload() if merge else model
    model = model if weights.quantization is not None else model.to(device)
    return model.eval()


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of weights on a device."""
    import torch

    if name != "auto":
        found: torch.dtype = getattr(torch, name)
        return found
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if device.type != "cuda" or torch.cuda.is_bf16_supported() else torch.float16


def _base(
    place: Place, tokenizer: PreTrainedTokenizerFast, weights: Weights, device: torch.device, attention: str
) -> Any:
    dtype = resolve_dtype(weights.dtype, device)
    _tell(place, weights, dtype)
    chosen: dict[str, Any] = {} if attention == "auto" else {"attention": attention}
    source = Pretrained(
        path=place.model,
        trust_remote_code=weights.trust_remote_code,
        revision=place.model_revision,
        **chosen,
    )
    try:
        source.check()
        quantization = None if weights.quantization is None else _QUANTIZATIONS[weights.quantization]()
        if quantization is not None:
            quantization.check()
        source = source.settled(dtype)
        return source.load(tokenizer, dtype, None if quantization is None else quantization.config())
    except ConfigError as error:
        raise ConfigError(_KEYS.get(error.key, error.key), _message(error, place)) from error


def _message(error: ConfigError, place: Place) -> str:
    if place.adapter is None or error.key != "model.path":
        return error.message
    return f"{place.adapter} is an adapter, and its base cannot be loaded: {error.message}"


def _tell(place: Place, weights: Weights, dtype: torch.dtype) -> None:
    held = f"{weights.quantization} weights, computing in" if weights.quantization else "weights in"
    kind = f"{place.adapter} on {place.model}" if place.adapter is not None else place.model
    _log.info("model: %s, %s %s", kind, held, str(dtype).removeprefix("torch."))
    if place.adapter is not None and place.was_quantized and weights.quantization is None:
        _log.info(
            "the adapter was trained on quantised weights; these are whole: "
            "job.quantization=4bit is as in training, and takes less memory"
        )


def _with_adapter(model: Any, place: Place) -> Any:
    from peft import PeftModel

    assert place.adapter is not None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)  # among the libraries themselves
            return PeftModel.from_pretrained(model, place.adapter, revision=place.revision)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ConfigError("path", f"{place.adapter} does not fit its base {place.model}: {error}") from error


def _quiet_bars() -> None:
    """Bars of the libraries are for terminals; in a log they are noise."""
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
