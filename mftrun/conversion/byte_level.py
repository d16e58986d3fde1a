"""Aquila2's tokenizer: byte-level BPE in two files, or a fast one already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.conversion import chat_templates
from mftrun.conversion.source_tokenizer import TokenizerFiles, add_tokens, finished

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


def aquila_tokenizer(files: TokenizerFiles, config: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """From `tokenizer.json`, or from `vocab.json` and `merges.txt`.

    Args:
        files: Where they are.
        config: The legacy config; not needed.

    Raises:
        ConfigError: They are missing, or name a token that the vocabulary lacks.
    """
    from tokenizers import Tokenizer

    file = files.need("tokenizer.json", "vocab.json")
    made = Tokenizer.from_file(str(file)) if file.name == "tokenizer.json" else _of_vocabulary(files)
    add_tokens(made, {**_named(made, files), **files.added})
    eos = next((token for token in ("</s>", "<|endoftext|>") if made.token_to_id(token) is not None), None)
    roles = files.roles({"eos_token": eos, "pad_token": eos})
    return finished(made, roles, files.chat_template or chat_templates.AQUILA2, files.longest)


def _of_vocabulary(files: TokenizerFiles) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab = json.loads(files.need("vocab.json").read_text(encoding="utf-8"))
    made = Tokenizer(models.BPE(vocab=vocab, merges=_merges(files.need("merges.txt"))))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def _merges(file: Path) -> list[tuple[str, str]]:
    lines = file.read_text(encoding="utf-8").split("\n")
    pairs = (line.split(" ") for line in lines if line and not line.startswith("#version"))
    return [(pair[0], pair[1]) for pair in pairs]


def _named(made: Tokenizer, files: TokenizerFiles) -> dict[int, str]:
    """Tokens with a role that the vocabulary holds: text is searched for them first."""
    tokens = (files.role(role) for role in _ROLES)
    found = {token: made.token_to_id(token) for token in tokens if token is not None}
    return {number: token for token, number in found.items() if number is not None}
