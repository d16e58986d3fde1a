"""Tokenizers that lack a pad or an end token."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mftrun.data.sample import Message
from mftrun.data.template import RoleTemplate
from mftrun.errors import ConfigError
from mftrun.models.tokenizers import load_tokenizer


def saved(folder, control, **names):
    """A tokenizer with some control tokens, loaded back from a folder."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.add_special_tokens(control)
    PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)
    return load_tokenizer(str(folder))


def test_a_pad_token_is_kept(tmp_path):
    assert saved(tmp_path, ["<e>", "<p>"], eos_token="<e>", pad_token="<p>").pad_token == "<p>"


def test_the_end_token_pads(tmp_path):
    assert saved(tmp_path, ["<a>", "<e>"], eos_token="<e>").pad_token == "<e>"


def test_any_control_token_pads_where_there_is_no_end_token(tmp_path):
    tokenizer = saved(tmp_path, ["<a>", "<b>"])
    assert (tokenizer.eos_token, tokenizer.pad_token) == (None, "<a>")
    turns = [Message("user", "q"), Message("assistant", "a")]
    chosen = RoleTemplate("", "", "\n", end_token="<b>")
    encoded = chosen.encoder(tokenizer).encode(turns)
    assert encoded.ids[encoded.targets].tolist() == tokenizer.convert_tokens_to_ids(["a", "<b>"])
    with pytest.raises(
        ConfigError, match=r"template\.end_token: the tokenizer has no end-of-sequence token; set"
    ):
        RoleTemplate("", "", "\n").encoder(tokenizer)


def test_no_control_token_at_all(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.path: .* no pad, end or other control token; add one"):
        saved(tmp_path, [])
