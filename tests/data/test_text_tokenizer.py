from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from mftrun.data import words
from mftrun.data.text_tokenizer import Place, TextTokenizer
from mftrun.data.words import WordTokenizer, word_tokenizer

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
CORPUS = [
    "def add(a, b):\n    return a + b\n\n\nclass A:\r\n\tx = 1234567\n",
    "It's what we've said, and they'll say: I'M, you'RE.  Über naïve façade, größer.",
    "中文文本和数字\uff1123。日本語のテキスト\uff01 русский текст, ελληνικά, العربية \u0661٢٣ 한국어",
]
PIECES = [
    *["'s", "'S", "'re", "'LL", "ß", "ﬁ", "İ", "\u0131", "'", "\u2019"],
    *[" ", "  ", "\t", "\n", "\n\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x1f"],
    *["\x85", "\xa0", "\u2028", "\u3000"],
    *["a", "Zz", "don't", "é", "e\u0301", "中文", "ª", "한", "\u1100\u1161", "\u0903", "\U0001d400", "ʰ"],
    *["1", "2345", "\uff11", "\u0661", "²", "½", "Ⅷ", "\U0001d7ce"],
    *["_", "...", "=>", "😀", "\u200b", "\u200d", "\0"],
]
NEW_OR_ODD = ["\u0378", "\U00031350", "\u1c89", "\U00010d4a", "\ufeff", "\ue000", "\u017f", "\u212a"]
SPACED = {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True, "trim_offsets": True}
TEXTS = st.one_of(
    st.text(),
    *(st.lists(st.sampled_from(some), max_size=30).map("".join) for some in (PIECES, PIECES + NEW_OR_ODD)),
)


def _split(pattern: str) -> Any:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _trained(pre_tokenizer: Any, normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return tokenizer


def _ignoring_merges(tokenizer: Tokenizer) -> Tokenizer:
    state = json.loads(tokenizer.to_str())
    state["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(state))


GPT2_TOKENIZER = _trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
TOKENIZERS = {
    "gpt2": GPT2_TOKENIZER,
    "llama3": _ignoring_merges(_trained(_split(LLAMA3))),
    "qwen2": _trained(_split(QWEN2), normalizers.NFC()),
}


def _fast(tokenizer: Tokenizer) -> WordTokenizer | None:
    return word_tokenizer(tokenizer, json.loads(tokenizer.to_str()))


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    return copy.encode_batch_fast([text], add_special_tokens=False)[0].ids


@pytest.mark.parametrize("name", TOKENIZERS)
def test_each_known_pattern_takes_the_fast_way(name: str) -> None:
    fast = _fast(TOKENIZERS[name])

    assert fast is not None
    assert all(fast.ids(text) is not None for text in CORPUS)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_words_give_the_tokens_that_the_tokenizer_gives(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    both, fast = TextTokenizer(tokenizer, ()), _fast(tokenizer)
    assert fast is not None

    @settings(max_examples=150, deadline=None, database=None)
    @given(TEXTS)
    @example("<end> a <end>")
    @example("")
    @example("e\u0301 \u1100\u1161")
    @example("'Sa'Ta'REa'VEa'Ma'LLa'Da'sa'ta'rea'vea'ma'lla'da")
    @example("a  \n  b\n\n  c \r\n\r d'll'S")
    def check(text: str) -> None:
        assert both.encode(Place.START, [text])[0].tolist() == _plain(tokenizer, text)
        cut = fast._cut(text)  # the small vocabulary gives the same tokens for some other cuts
        assert cut is None or cut == [text[slice(*span)] for span in fast._rust_spans(text)]

    check()


def test_words_are_looked_up_once_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = _fast(GPT2_TOKENIZER)
    assert fast is not None
    first = fast.ids("one two one two")
    asked: list[str] = []
    monkeypatch.setattr(fast._table, "_tokenize", lambda word: asked.append(word) or [])

    again = fast.ids("one two one two")

    assert first is not None
    assert again is not None
    assert first.tolist() == again.tolist()
    assert asked == []


@pytest.mark.parametrize("text", CORPUS)
def test_long_texts_are_cut_piece_by_piece(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(words, "_LONG_TEXT", 10)
    fast = _fast(GPT2_TOKENIZER)
    assert fast is not None

    ids = fast.ids(text)

    assert not isinstance(fast._cut(text), list)
    assert ids is not None
    assert ids.tolist() == _plain(GPT2_TOKENIZER, text)


def test_the_table_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MOST_WORDS", 5)
    fast = _fast(GPT2_TOKENIZER)
    assert fast is not None
    text = " ".join(f"w{letter}x" for letter in "abcdefghijklmnopqrstuvwxyz") + " " + "y" * 1000

    ids = fast.ids(text)

    assert ids is not None
    assert ids.tolist() == _plain(GPT2_TOKENIZER, text)
    assert len(fast._table) <= 5
    assert max(map(len, fast._table)) < 1000


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": SPACED},
        {"pre_tokenizer": None},
        {"model": {"dropout": 0.1}},
    ],
)
def test_other_tokenizers_go_the_plain_way(change: dict[str, Any]) -> None:
    state = json.loads(GPT2_TOKENIZER.to_str())
    state = {**state, **change, "model": {**state["model"], **change.get("model", {})}}
    tokenizer = Tokenizer.from_str(json.dumps(state))

    assert word_tokenizer(tokenizer, state) is None
    assert TextTokenizer(tokenizer, ()).encode(Place.INSIDE, ["some text"])[0].size


def test_an_unknown_expression_goes_the_plain_way() -> None:
    assert _fast(_trained(_split(LLAMA3 + r"|\d"))) is None


def test_an_added_token_in_text_is_found_as_the_tokenizer_finds_it() -> None:
    tokenizer = Tokenizer.from_str(GPT2_TOKENIZER.to_str())
    tokenizer.add_tokens([AddedToken("<call>", normalized=False), AddedToken("   ", normalized=False)])
    texts = ["a<call>b", "x   y    z", "plain"]

    encoded = TextTokenizer(tokenizer, ()).encode(Place.START, texts)

    assert [ids.tolist() for ids in encoded] == [_plain(tokenizer, text) for text in texts]
    assert tokenizer.token_to_id("<call>") in encoded[0]


def test_a_character_the_engines_class_apart_goes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = _fast(GPT2_TOKENIZER)
    assert fast is not None
    monkeypatch.setattr(fast, "_rust_spans", lambda text: [])  # another version of Unicode

    assert fast.ids("größer") is None
    assert fast.ids("plain") is not None


def test_engines_that_cut_ascii_apart_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WordTokenizer, "_rust_spans", lambda self, text: [(0, len(text))])

    assert _fast(GPT2_TOKENIZER) is None


def test_special_tokens_in_text_stay_text_after_pickling() -> None:
    both = pickle.loads(pickle.dumps(TextTokenizer(GPT2_TOKENIZER, ())))
    texts = ["<end>", "größer <end>"]

    for text, ids in zip(texts, both.encode(Place.START, texts), strict=True):
        assert GPT2_TOKENIZER.token_to_id("<end>") not in ids
        assert ids.dtype == np.int32
        assert ids.tolist() == _plain(GPT2_TOKENIZER, text)


def test_places_with_and_without_a_space_in_front() -> None:
    tokenizer = _trained(pre_tokenizers.ByteLevel(add_prefix_space=True))
    both = TextTokenizer(tokenizer, ())

    start, inside = (both.encode(place, ["return"])[0].tolist() for place in (Place.START, Place.INSIDE))

    assert start == _plain(tokenizer, " return")
    assert inside != start
