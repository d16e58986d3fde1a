"""Qwen's vocabulary file (byte sequences and their ranks) as a fast byte-level BPE tokenizer."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.conversion import chat_templates
from mftrun.conversion.source_tokenizer import TokenizerFiles, add_tokens, finished
from mftrun.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_END = "<|endoftext|>"
_CONTROL = (_END, "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205)))


def qwen_tokenizer(files: TokenizerFiles, config: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Qwen's tokenizer: its ranks, its way to cut text into words, and its control tokens after the ranks.

    Args:
        files: Where `qwen.tiktoken` is.
        config: The legacy config; not needed.

    Raises:
        ConfigError: The file is missing.
        DataError: A line of it is broken.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    ranks = read_ranks(files.need("qwen.tiktoken"))
    letters = byte_letters()

    def spelt(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocab = {spelt(token): rank for token, rank in ranks.items()}
    merges = [(spelt(left), spelt(right)) for left, right in merges_of(ranks)]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    add_tokens(tokenizer, dict(enumerate(_CONTROL, len(ranks))))
    roles = {"eos_token": _END, "pad_token": _END}
    template = files.chat_template or chat_templates.QWEN
    return finished(tokenizer, files.roles(roles), template, files.longest)


def read_ranks(file: Path) -> dict[bytes, int]:
    """Byte sequences by their ranks: a line each, in base 64.

    Raises:
        DataError: A line is none, or ranks are not 0, 1, 2 and so on.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise DataError(file, number, f"is no base 64 text and rank: {error}") from error
        if int(rank) != len(ranks) - 1:
            raise DataError(file, number, f"has rank {int(rank)}, not {len(ranks) - 1}")
    return ranks


def merges_of(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pairs that BPE joins, in order: what is joined last when a sequence is made of lower ranks.

    A sequence that lower ranks do not bring down to two parts is never made by joining, nor is it here.
    """
    pairs = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = _joined(token, ranks, rank) if len(token) > 1 else []
        if len(parts) == 2:
            pairs.append((parts[0], parts[1]))
    return pairs


def _joined(token: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    """The parts that remain of single bytes when pairs of ranks ``below`` are joined, lowest first."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        found = [
            (ranks.get(parts[place] + parts[place + 1], below), place) for place in range(len(parts) - 1)
        ]
        rank, place = min(found)
        if rank >= below:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte in byte-level vocabularies (as GPT-2 has them)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}
