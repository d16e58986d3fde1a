"""Tokenizers: trained on the tasks' own text, or loaded with a pretrained model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
PAD = "<|pad|>"
BYTES = 256


def train_bpe(
    texts: Iterable[str], vocab_size: int, control_tokens: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer (arXiv 1909.03341). The same texts give the same tokenizer.

    Args:
        texts: What to train on. Every text can be encoded and decoded back, whether it was seen or not.
        vocab_size: Most entries, control tokens included; little text gives fewer.
        control_tokens: Entries of their own, besides `END` and `PAD`.

    Raises:
        ConfigError: The size does not hold all bytes and control tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys([END, PAD, *control_tokens]))
    if vocab_size < BYTES + len(special):
        raise ConfigError("model.vocab_size", f"must be {BYTES + len(special)} or more, not {vocab_size}")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def load_tokenizer(
    path: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    *,
    end_token: str | None = None,
    pad_token: str | None = None,
) -> PreTrainedTokenizerFast:
    """Loads the tokenizer of a pretrained model.

    Without a pad token the end token takes its place, else any control token: what pads is never looked at.
    An end token is not needed here; templates that cannot do without say so.

    Args:
        path: Local folder or hub id.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether code in the model's folder may run.
        end_token: Ends a text; None takes the tokenizer's own.
        pad_token: Fills rows; None takes the tokenizer's own.

    Raises:
        ConfigError: There is no tokenizer, it is not a fast one, it has no control token to pad with, or not
            the tokens that were named.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise ConfigError("model.path", f"{path} has no tokenizer that can be loaded: {error}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            "model.path", f"the tokenizer of {path} is not a fast one (tokenizer.json); convert it"
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ConfigError(
            "model.path", f"the tokenizer of {path} is empty: no tokenizer.json or vocabulary there"
        )
    if end_token is not None:
        tokenizer.eos_token = _entry(tokenizer, "end_token", end_token, tokenizer.eos_token)
    if pad_token is not None:
        tokenizer.pad_token = _entry(tokenizer, "pad_token", pad_token, tokenizer.pad_token)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = _padding_of(tokenizer, path)
    return tokenizer


def _entry(tokenizer: PreTrainedTokenizerFast, key: str, name: str, own: str | None) -> str:
    """A token that the tokenizer has: one of another name would be a new, untrained one."""
    if name in tokenizer.get_vocab():
        return name
    kept = "which is none" if own is None else repr(own)
    some = ", ".join(tokenizer.all_special_tokens[:8]) or "none"
    message = (
        f"{name!r} is not a token of {tokenizer.name_or_path}; use null for the tokenizer's own ({kept}), "
        f"or one of its entries (its control tokens: {some})"
    )
    raise ConfigError(f"model.{key}", message)


def _padding_of(tokenizer: PreTrainedTokenizerFast, path: str) -> str:
    added = sorted(tokenizer.get_added_vocab().items(), key=lambda item: item[1])
    for token in (tokenizer.eos_token, tokenizer.unk_token, *(name for name, _ in added)):
        if token is not None:
            return str(token)
    message = f"the tokenizer of {path} has no pad, end or other control token; add one to its config"
    raise ConfigError("model.path", message)
