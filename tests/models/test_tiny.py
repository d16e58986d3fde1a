from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mftrun.errors import ConfigError
from mftrun.models.base import ModelSource
from mftrun.models.tiny import TinyLlama
from mftrun.models.tokenizers import END, PAD, train_bpe
from mftrun.models.verify import check_length, verify_against_logits

TEXTS = ["def add(a, b):\n    return a + b\n", "class Point:\n\tx: int = 0\n", "naïve — 你好 🙂\r\n"] * 3
CONTROL = ("<s>", "<|im_end|>")
SMALL = TinyLlama(
    vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
)


def texts():
    return iter(TEXTS)


def test_tokenizer_round_trip_and_control_tokens():
    tokenizer = SMALL.tokenizer(texts, CONTROL)
    assert len(tokenizer) == 300
    assert (tokenizer.eos_token, tokenizer.pad_token) == (END, PAD)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for text in [*TEXTS, " leading, never seen: ¿ß? \x00 ", "a  b"]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
    for token in (END, PAD, *CONTROL):
        assert tokenizer(token)["input_ids"] == [tokenizer.convert_tokens_to_ids(token)]
        assert token in tokenizer.get_added_vocab()


def test_tokenizer_learns_from_the_texts():
    tokenizer = train_bpe(["return " * 50], 400)
    assert len(tokenizer("return return")["input_ids"]) == 2
    assert len(tokenizer("zebra")["input_ids"]) == 5


def test_tokenizer_is_deterministic():
    made = [SMALL.tokenizer(texts, CONTROL).backend_tokenizer.to_str() for _ in range(2)]
    assert made[0] == made[1]


def test_tokenizer_too_small():
    with pytest.raises(ConfigError, match="258 or more, not 257") as caught:
        train_bpe(TEXTS, 257)
    assert caught.value.key == "model.vocab_size"


def test_model_is_saved_and_loaded_as_a_plain_folder(tmp_path):
    tokenizer = SMALL.tokenizer(texts, CONTROL)
    model = SMALL.load(tokenizer, torch.float32)
    assert model.training
    verify_against_logits(model)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, "<s>human\n x" + END]:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert (again.eos_token_id, again.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.use_cache
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_sizes_and_seed():
    tokenizer = SMALL.tokenizer(texts)
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(SMALL.load(tokenizer, torch.float32))
    config = models[0].config
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (len(tokenizer), 32, 2)
    assert config.eos_token_id == tokenizer.eos_token_id
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))
    assert SMALL.load(tokenizer, torch.bfloat16).dtype == torch.bfloat16


def test_default_is_about_a_million_parameters():
    tokenizer = SMALL.tokenizer(texts)
    model = TinyLlama().load(tokenizer, torch.float32)
    body = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    assert 0.5e6 < body + 4096 * model.config.hidden_size < 2e6


@pytest.mark.parametrize(
    ("sizes", "key"),
    [
        ({"hidden_size": 30}, "model.num_attention_heads"),
        ({"hidden_size": 12}, "model.hidden_size"),
        ({"num_hidden_layers": 0}, "model.num_hidden_layers"),
        ({"num_attention_heads": 0}, "model.num_attention_heads"),
        ({"num_key_value_heads": 3}, "model.num_key_value_heads"),
    ],
)
def test_impossible_sizes(sizes, key):
    with pytest.raises(ConfigError) as caught:
        TinyLlama(**sizes)
    assert caught.value.key == key


def test_rows_longer_than_the_positions():
    model = SMALL.load(SMALL.tokenizer(texts), torch.float32)
    check_length(model, 4096)
    with pytest.raises(ConfigError, match="4096 positions") as caught:
        check_length(model, 4097)
    assert caught.value.key == "data.max_length"


def test_is_a_model_source():
    assert isinstance(SMALL, ModelSource)
    SMALL.check()
    with pytest.raises(ConfigError, match="must be one of"):
        TinyLlama(head="fast").check()
