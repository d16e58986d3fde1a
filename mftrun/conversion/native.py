"""The native side of a conversion: does the new checkpoint fit its class, and how does it generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

_STOPS = ("<|im_end|>", "<|user|>", "<|observation|>")
_SAMPLING = ("do_sample", "temperature", "top_p", "top_k")
_LENGTHS = ("repetition_penalty", "max_new_tokens", "max_length")


def check_fits(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Compares names and shapes with those of the model that transformers makes of the config.

    Args:
        config: The native config.json.
        tensors: Of the checkpoint, by name; their numbers are not looked at.

    Raises:
        ConfigError: They differ.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **values))
    expected = dict(model.state_dict(keep_vars=True))
    if config.get("tie_word_embeddings"):
        expected.pop("lm_head.weight", None)
    for name in sorted(expected.keys() ^ tensors.keys()):
        whose = "lacks" if name in expected else "would hold an unknown tensor,"
        raise ConfigError("source", f"as {type(model).__name__} it {whose} {name}")
    for name, tensor in tensors.items():
        if (found := list(tensor.shape)) != (wanted := list(expected[name].shape)):
            raise ConfigError("source", f"its config.json asks for {name} of shape {wanted}; it has {found}")


def generation_settings(legacy: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Contents of generation_config.json: how the legacy one samples, and every token that ends an answer."""
    known = tokenizer.get_vocab()
    ends = [tokenizer.eos_token_id, *(known[token] for token in _STOPS if token in known)]
    ids = {"eos_token_id": [number for number in dict.fromkeys(ends) if number is not None]}
    named = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    # Transformers refuses to save settings of sampling where nothing is sampled.
    keys = (*_LENGTHS, *(_SAMPLING if legacy.get("do_sample") else ()))
    sampling = {key: legacy[key] for key in keys if legacy.get(key) is not None}
    return ids | {key: number for key, number in named.items() if number is not None} | sampling
