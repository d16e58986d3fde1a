"""Digests: short names for everything that tokens depend on."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def digest(value: Any) -> str:
    """SHA-256 of plain values, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """A digest, equal for tokenizers that make the same tokens of the same conversations."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {name: state[name] for name in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
    named = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return digest([parts, named, tokenizer.chat_template])
