"""Fast tokenizers give the tokens that the original libraries give (data/expected.json holds those)."""

import json
from types import MappingProxyType

import numpy as np
import pytest
from legacy_checkpoints import CONFIGS, DATA, tensors, write
from transformers import GenerationConfig

from mftrun.conversion.sentencepiece import CONTROL, USER_DEFINED, read_model
from mftrun.conversion.sentencepiece_tokenizer import fast_tokenizer
from mftrun.conversion.source_tokenizer import TokenizerFiles
from mftrun.conversion.tiktoken import merges_of, qwen_tokenizer, read_ranks
from mftrun.data.sample import Message
from mftrun.data.templates.model import ModelTemplate
from mftrun.errors import ConfigError, DataError
from mftrun.jobs.convert import ConvertJob
from mftrun.models.tokenizers import load_tokenizer

EXPECTED = MappingProxyType(json.loads((DATA / "expected.json").read_text(encoding="utf-8")))
CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Go"},
]


@pytest.mark.parametrize("name", ["bpe_prefix", "bpe_plain", "unigram"])
def test_sentencepiece_models_cut_as_sentencepiece_does(name):
    known = EXPECTED[name]
    tokenizer = fast_tokenizer(read_model(DATA / f"{name}.model"), {})
    assert tokenizer.get_vocab_size() == known["size"]
    for text, ids, decoded in zip(known["texts"], known["ids"], known["decoded"], strict=True):
        assert tokenizer.encode(text).ids == ids, text
        assert tokenizer.decode(ids, skip_special_tokens=False) == decoded, text


def test_ranks_of_bytes_cut_as_tiktoken_does():
    known, tokenizer = EXPECTED["qwen"], qwen_tokenizer(TokenizerFiles(DATA, "qwen"), {})
    assert len(tokenizer) == known["size"]
    for text, ids in zip(known["texts"], known["ids"], strict=True):
        assert tokenizer(text)["input_ids"] == ids, text


def test_merges_are_what_is_joined_last():
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"bc": 256, b"ab": 257, b"abc": 258, b"xyz": 259}
    assert merges_of(ranks) == [(b"b", b"c"), (b"a", b"b"), (b"a", b"bc")]  # nothing lower makes xyz of two


def test_our_reader_agrees_with_protobuf():
    schema = pytest.importorskip("transformers.utils.sentencepiece_model_pb2_new")
    for name in ("bpe_plain", "unigram"):
        proto = schema.ModelProto()
        proto.ParseFromString((DATA / f"{name}.model").read_bytes())
        model = read_model(DATA / f"{name}.model")
        assert list(model.pieces) == [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
        assert model.bpe == (proto.trainer_spec.model_type == 2)
        assert model.dummy_prefix == proto.normalizer_spec.add_dummy_prefix
        assert model.remove_spaces == proto.normalizer_spec.remove_extra_whitespaces
        assert model.first(CONTROL) == "<s>"
    assert read_model(DATA / "bpe_plain.model").first(USER_DEFINED) == "<reserved_106>"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Tokenizers of converted checkpoints, as a run loads them."""

    def load(name):
        folder = tmp_path_factory.mktemp(name)
        source = write(folder / "legacy", CONFIGS[name], tensors(CONFIGS[name]))
        ConvertJob(str(source), str(folder / "native")).run({}, folder)
        return load_tokenizer(str(folder / "native"))

    return {
        name: load(name) for name in ("qwen", "baichuan2", "chatglm2", "chatglm3", "aquila2", "internlm2")
    }


@pytest.mark.parametrize(
    ("name", "key", "before"),
    [
        ("qwen", "qwen", []),
        ("baichuan2", "bpe_plain", []),
        ("chatglm2", "bpe_prefix", ["[gMASK]", "<sop>"]),
        ("chatglm3", "bpe_prefix", ["[gMASK]", "<sop>"]),
        ("internlm2", "bpe_plain", ["<s>"]),
    ],
)
def test_a_loaded_tokenizer_still_does(loaded, name, key, before):
    tokenizer, known = loaded[name], EXPECTED[key]
    first = tokenizer.convert_tokens_to_ids(before)
    for text, ids in zip(known["texts"], known["ids"], strict=True):
        if name != "internlm2" or not {518, 519} & set(ids):  # these entries have other names there
            assert tokenizer(text)["input_ids"] == first + ids, text
            assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text


def test_aquilas_two_files(loaded):
    tokenizer = loaded["aquila2"]
    assert tokenizer.tokenize("a the</s>é") == ["a", "Ġthe", "</s>", "Ã", "©"]
    assert tokenizer.decode(tokenizer("a the é")["input_ids"]) == "a the é"


def test_control_tokens_have_the_ids_of_the_original(loaded):
    names = ["[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"]
    roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    assert loaded["chatglm2"].convert_tokens_to_ids(names) == [520, 521, 522, 523, 524]
    assert loaded["chatglm3"].convert_tokens_to_ids(roles) == [525, 526, 527, 528]
    assert len(loaded["chatglm2"]) == 525
    assert loaded["qwen"].convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"]) == [400, 402]
    assert loaded["internlm2"].convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [518, 519]


ROLES = {
    "qwen": ("<|endoftext|>", "<|endoftext|>"),
    "baichuan2": ("</s>", "<unk>"),
    "chatglm3": ("</s>", "<unk>"),
    "aquila2": ("</s>", "</s>"),
    "internlm2": ("</s>", "<unk>"),
}


@pytest.mark.parametrize("name", ROLES)
def test_end_and_padding(loaded, name):
    assert (loaded[name].eos_token, loaded[name].pad_token) == ROLES[name]


PROMPTS = {
    "qwen": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n",
    "internlm2": "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n"
    "<|im_start|>user\nGo<|im_end|>\n<|im_start|>assistant\n",
    "baichuan2": "<reserved_106>Hi<reserved_107>Yes?</s><reserved_106>Go<reserved_107>",
    "chatglm2": "[gMASK]<sop>[Round 1]\n\n问\uff1aHi\n\n答\uff1aYes?\n\n[Round 2]\n\n问\uff1aGo\n\n答\uff1a",
    "chatglm3": "[gMASK]<sop><|user|>\n Hi<|assistant|>\n Yes?<|user|>\n Go<|assistant|>",
    "aquila2": "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions.###Human: Hi###Assistant: Yes?</s>"
    "###Human: Go###Assistant:",
}


@pytest.mark.parametrize("name", PROMPTS)
def test_chat_format(loaded, name):
    prompt = loaded[name].apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert prompt == PROMPTS[name]


def test_messages_of_chatglm3_are_encoded_one_by_one(loaded):
    """The original encodes the header and each message on its own, each with a space in front."""
    tokenizer = loaded["chatglm3"]
    ids = tokenizer.apply_chat_template(
        CHAT[:1], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    pieces = read_model(DATA / "bpe_prefix.model")
    alone = [fast_tokenizer(pieces, {}).encode(text).ids for text in ("\n", "Hi")]
    names = ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>")
    mask, start, user, assistant = tokenizer.convert_tokens_to_ids(names)
    assert ids == [mask, start, user, *alone[0], *alone[1], assistant]


def test_the_checkpoints_own_template_is_kept(tmp_path):
    source = write(tmp_path / "legacy", CONFIGS["aquila2"], tensors(CONFIGS["aquila2"]))
    own = {"eos_token": {"content": "</s>"}, "chat_template": "{{ messages[0]['content'] }}"}
    (source / "tokenizer_config.json").write_text(json.dumps(own))
    (source / "generation_config.json").write_text(json.dumps({"top_p": 0.8, "max_new_tokens": 9}))
    ConvertJob(str(source), str(tmp_path / "native")).run({}, tmp_path)
    assert load_tokenizer(str(tmp_path / "native")).chat_template == own["chat_template"]
    settings = json.loads((tmp_path / "native" / "generation_config.json").read_text())
    assert settings == {"eos_token_id": [259], "pad_token_id": 259, "max_new_tokens": 9}


def test_every_token_that_ends_an_answer_is_named(tmp_path):
    source = write(tmp_path / "legacy", CONFIGS["chatglm3"], tensors(CONFIGS["chatglm3"]))
    (source / "generation_config.json").write_text(json.dumps({"do_sample": True, "top_p": 0.8, "chat": 1}))
    (source / "tokenizer_config.json").write_text(json.dumps({"bos_token": "sop", "model_max_length": 77}))
    ConvertJob(str(source), str(tmp_path / "native")).run({}, tmp_path)
    settings = json.loads((tmp_path / "native" / "generation_config.json").read_text())
    ends = {"eos_token_id": [2, 526, 528], "pad_token_id": 0}
    assert settings == {**ends, "do_sample": True, "top_p": 0.8}
    assert GenerationConfig.from_pretrained(tmp_path / "native").eos_token_id == ends["eos_token_id"]
    assert load_tokenizer(str(tmp_path / "native")).model_max_length == 77


def test_what_a_tokenizer_cannot_be_made_of_is_refused(tmp_path):
    (tmp_path / "qwen.tiktoken").write_text("IQ== 0\nIg== 2\n")
    with pytest.raises(DataError, match=r"qwen\.tiktoken:2: has rank 2"):
        read_ranks(tmp_path / "qwen.tiktoken")
    source = write(
        tmp_path / "c", {**CONFIGS["chatglm3"], "_name_or_path": "mine"}, tensors(CONFIGS["chatglm3"])
    )
    with pytest.raises(ConfigError, match="whether it is ChatGLM3"):
        ConvertJob(str(source), str(tmp_path / "native")).run({}, tmp_path)
    (source / "tokenization_chatglm.py").write_text('roles = ["<|user|>", "<|observation|>"]')
    ConvertJob(str(source), str(tmp_path / "native")).run({}, tmp_path)
    source = write(tmp_path / "b", CONFIGS["baichuan2"], tensors(CONFIGS["baichuan2"]))
    (source / "added_tokens.json").write_text(json.dumps({"<gap>": 530}))
    with pytest.raises(ConfigError, match="has id 530, and would get 520"):
        ConvertJob(str(source), str(tmp_path / "other")).run({}, tmp_path)


TARGETS = {
    "qwen": ["Yes?<|im_end|>", "No.<|im_end|>"],
    "internlm2": ["Yes?<|im_end|>", "No.<|im_end|>"],
    "baichuan2": ["Yes?</s>", "No.</s>"],
    "chatglm2": ["Yes?", "No.</s>"],
    "chatglm3": ["\n Yes?", "\n No.</s>"],
    "aquila2": [" Yes?</s>", " No.</s>"],
}


@pytest.mark.parametrize("name", TARGETS)
def test_answers_are_trained_in_the_chat_format(loaded, name):
    """With template=model: what the assistant says, and what ends it."""
    tokenizer = loaded[name]
    messages = [Message(**turn) for turn in [*CHAT, {"role": "assistant", "content": "No."}]]
    encoded = ModelTemplate().encoder(tokenizer).encode(messages)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], encoded.targets, [False]]).astype(int)))
    spans = [encoded.ids[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    assert [tokenizer.decode(span) for span in spans] == TARGETS[name]
