"""Fast tokenizers from SentencePiece models: Baichuan2, InternLM2, ChatGLM2, ChatGLM3 and CodeGeeX2."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mftrun.conversion import chat_templates
from mftrun.conversion.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceModel,
    read_model,
)
from mftrun.conversion.source_tokenizer import TokenizerFiles, add_tokens, begins_with, finished
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

_SPACE = "▁"
_CHATGLM2 = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>")
_CHATGLM3 = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
_BAICHUAN_CHAT = ("<reserved_106>", "<reserved_107>")


def baichuan_tokenizer(files: TokenizerFiles, config: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """Baichuan2's tokenizer; the entries that stand for user and assistant are control tokens."""
    made = _of_files(files)
    chat = {made.token_to_id(token): token for token in _BAICHUAN_CHAT}
    add_tokens(made, {number: token for number, token in chat.items() if number is not None})
    return _with_roles(made, files, begins=False, template=files.chat_template or chat_templates.BAICHUAN2)


def internlm2_tokenizer(files: TokenizerFiles, config: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """InternLM2's tokenizer: texts begin with the begin token."""
    template = files.chat_template or chat_templates.INTERNLM2
    return _with_roles(_of_files(files), files, begins=True, template=template)


def chatglm_tokenizer(files: TokenizerFiles, config: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """The tokenizer of ChatGLM2, ChatGLM3 or CodeGeeX2: control tokens follow the pieces.

    The original writes two of them `sop` and `eop`, and never looks for them in text. A fast tokenizer does,
    so they have the names that GLM-4 gives them, `<sop>` and `<eop>`; their ids are the same.

    Raises:
        ConfigError: Nothing tells ChatGLM3, which has tokens for roles, from the others.
    """
    model = read_model(files.need("tokenizer.model"))
    third = _is_third(files, config)
    control = (*_CHATGLM2, *(_CHATGLM3 if third else ()))
    made = fast_tokenizer(model, {})
    add_tokens(made, dict(enumerate(control, len(model.pieces))))
    begins_with(made, ["[gMASK]", "<sop>"])
    unknown = model.first(UNKNOWN)
    roles = {"eos_token": "</s>", "pad_token": unknown, "unk_token": unknown}
    template = chat_templates.CHATGLM3 if third else chat_templates.CHATGLM2
    return finished(made, roles, template, files.longest)


def _is_third(files: TokenizerFiles, config: Mapping[str, Any]) -> bool:
    code = files.folder / "tokenization_chatglm.py"
    if code.is_file():
        return _CHATGLM3[-1] in code.read_text(encoding="utf-8")
    names = f"{config.get('_name_or_path', '')} {files.label}".lower()
    third, second = "chatglm3" in names, "chatglm2" in names or "codegeex2" in names
    if third == second:
        raise ConfigError(
            "source",
            f"{files.label} does not tell whether it is ChatGLM3, which has tokens for roles: add its "
            'tokenization_chatglm.py, or set "_name_or_path" in its config.json to chatglm2-6b, codegeex2-6b '
            "or chatglm3-6b",
        )
    return third


def _of_files(files: TokenizerFiles) -> Tokenizer:
    """The model's pieces; tokens that the files add may take the place of some."""
    model = read_model(files.need("tokenizer.model"))
    made = fast_tokenizer(model, files.added)
    add_tokens(made, files.added)
    return made


def _with_roles(
    made: Tokenizer, files: TokenizerFiles, begins: bool, template: str
) -> PreTrainedTokenizerFast:
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    roles: dict[str, str | None] = {
        role: name for role, name in names.items() if made.token_to_id(name) is not None
    }
    roles["pad_token"] = roles.get("unk_token", roles.get("eos_token"))
    named = files.roles(roles)
    first = named["bos_token"]
    if files.config.get("add_bos_token", begins) and first is not None:
        begins_with(made, [first])
    return finished(made, named, template, files.longest)


def fast_tokenizer(model: SentencePieceModel, renamed: Mapping[int, str]) -> Tokenizer:
    """A fast tokenizer that cuts text as SentencePiece does.

    Args:
        model: The SentencePiece model.
        renamed: Other names for some of its entries.

    Raises:
        ConfigError: Two entries would have one name.
    """
    from tokenizers import Tokenizer, decoders

    texts = [renamed.get(number, piece.text) for number, piece in enumerate(model.pieces)]
    if twice := [text for text, times in Counter(texts).items() if times > 1]:
        raise ConfigError("source", f"its tokenizer has entries of the same name: {', '.join(twice[:3])}")
    tokenizer = Tokenizer(_bpe(model, texts) if model.bpe else _unigram(model, texts))
    tokenizer.normalizer = _normalizer(model)
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(
        [*steps, decoders.Strip(" ", 1, 0)] if model.dummy_prefix else steps
    )
    for kinds, special in (((CONTROL, UNKNOWN), True), ((USER_DEFINED,), False)):
        add_tokens(tokenizer, _of_kinds(model, texts, kinds), special)
    return tokenizer


def _of_kinds(model: SentencePieceModel, texts: list[str], kinds: tuple[int, ...]) -> dict[int, str]:
    if USER_DEFINED in kinds and model.dummy_prefix and model.first(USER_DEFINED) is not None:
        log.warning("after a symbol such as %s text gets a space in front", model.first(USER_DEFINED))
    return {number: texts[number] for number, piece in enumerate(model.pieces) if piece.kind in kinds}


def _bpe(model: SentencePieceModel, texts: list[str]) -> Any:
    """SentencePiece joins the pair whose piece has the highest score, so scores order the pairs."""
    from tokenizers import models

    joined = {
        text: number
        for number, text in enumerate(texts)
        if model.pieces[number].kind in (NORMAL, USER_DEFINED)
    }
    order = sorted(joined.items(), key=lambda item: -model.pieces[item[1]].score)
    merges = [
        pair
        for text, _ in order
        for pair in sorted(_pairs(text, joined), key=lambda pair: (joined[pair[0]], joined[pair[1]]))
    ]
    return models.BPE(
        vocab={text: number for number, text in enumerate(texts)},
        merges=merges,
        unk_token=model.first(UNKNOWN),
        fuse_unk=True,
        byte_fallback=model.first(BYTE) is not None,
    )


def _pairs(text: str, known: Mapping[str, int]) -> list[tuple[str, str]]:
    halves = ((text[:place], text[place:]) for place in range(1, len(text)))
    return [(left, right) for left, right in halves if left in known and right in known]


def _unigram(model: SentencePieceModel, texts: list[str]) -> Any:
    from tokenizers import models

    scored = [(text, piece.score) for text, piece in zip(texts, model.pieces, strict=True)]
    unknown = next((n for n, piece in enumerate(model.pieces) if piece.kind == UNKNOWN), None)
    return models.Unigram(scored, unknown, model.first(BYTE) is not None)


def _normalizer(model: SentencePieceModel) -> Any:
    from tokenizers import Regex, normalizers

    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_spaces:
        ends, repeated = Regex(r"\A +| +\z"), Regex(" {2,}")
        steps += [normalizers.Replace(ends, ""), normalizers.Replace(repeated, " ")]
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
